//! Whether a call is traced, as `OTEL_TRACES_SAMPLER` says. Decided once, where the call begins; everything behind it
//! goes by the flag in its context.

use dwell_messages::{TraceContext, TraceId};

/// The variable that names the sampler.
pub const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// The variable that has its ratio.
pub const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Decides which calls are traced.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampler {
    root: Rate,
    /// Whether a parent's own decision stands.
    parent_based: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Rate {
    Always,
    Never,
    /// From 0 to 1.
    Ratio(f64),
}

impl Default for Sampler {
    /// A parent's decision stands; a call without a parent is traced.
    fn default() -> Self {
        Self::roots(true)
    }
}

impl Sampler {
    /// A parent's decision stands; calls without a parent are all traced, or none.
    pub fn roots(sampled: bool) -> Self {
        Self {
            root: if sampled { Rate::Always } else { Rate::Never },
            parent_based: true,
        }
    }

    /// What the variables say by this lookup, and what of them was passed over. Unset: the default.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> (Self, Option<String>) {
        let set = |name| lookup(name).filter(|value: &String| !value.trim().is_empty());
        let Some(name) = set(SAMPLER) else {
            return (Self::default(), None);
        };
        let mut problem = None;
        let mut ratio = || {
            let given = set(SAMPLER_ARG).and_then(|text| text.trim().parse::<f64>().ok());
            given.filter(|ratio| (0.0..=1.0).contains(ratio)).map_or_else(
                || {
                    problem = Some(format!(
                        "{SAMPLER_ARG} is no number from 0 to 1: every call is traced"
                    ));
                    Rate::Always
                },
                Rate::Ratio,
            )
        };
        let (root, parent_based) = match name.trim() {
            "always_on" => (Rate::Always, false),
            "always_off" => (Rate::Never, false),
            "traceidratio" => (ratio(), false),
            "parentbased_always_on" => (Rate::Always, true),
            "parentbased_always_off" => (Rate::Never, true),
            "parentbased_traceidratio" => (ratio(), true),
            _ => {
                problem = Some(format!(
                    "{SAMPLER} names no sampler that is built in: use always_on, always_off or traceidratio, with \
                     parentbased_ before it or not"
                ));
                (Rate::Always, true)
            }
        };
        (Self { root, parent_based }, problem)
    }

    /// Whether a call of this trace is traced.
    pub fn decide(&self, parent: Option<&TraceContext>, trace_id: TraceId) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.is_sampled(),
            Some(_) | None => self.root.takes(trace_id),
        }
    }
}

impl Rate {
    /// By the low half of the id, as other SDKs do it, so that all of them take the same traces.
    fn takes(self, trace_id: TraceId) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Ratio(ratio) => {
                let [.., a, b, c, d, e, f, g, h] = trace_id.0;
                let low = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
                // From 0 to 2^63.
                let bound = (ratio * (1_u64 << 63) as f64) as u64;
                low < bound
            }
        }
    }
}
