//! An explanation for people.

use std::fmt::Write;

use super::baseline::BASELINE_CALLS_MIN;
use super::cause::Ranked;
use super::explain::Explanation;
use crate::waterfall::units::duration;

/// How many reasons are written out.
const REASONS_SHOWN_MAX: usize = 5;
/// Reasons below this share of the call, in per cent, are not worth a line unless they are unusual or the first.
const SHARE_SHOWN_MIN_PERCENT: f64 = 1.0;

/// Writes an explanation, every line ended: the call, what it is held against, and the reasons in their order.
pub fn render(explanation: &Explanation, ascii: bool) -> String {
    let mut out = String::new();
    let time = |us: u64| duration(us.saturating_mul(1_000), ascii);
    let program = explanation.program.as_deref().unwrap_or("call");
    let _ = writeln!(
        out,
        "{program} {}  trace {}",
        time(explanation.total_us),
        explanation.trace_id
    );
    out.push_str(&plain(&against(explanation, &time), ascii));
    out.push_str("\n\n");
    if explanation.reasons.is_empty() {
        out.push_str("nothing in this trace says where the time went\n");
        return out;
    }
    let worth = explanation.reasons.iter().enumerate().filter(|(index, reason)| {
        let large = reason.share_percent >= SHARE_SHOWN_MIN_PERCENT && !reason.cause.is_beside();
        *index == 0 || reason.unusual || large
    });
    for (number, (_, reason)) in worth.take(REASONS_SHOWN_MAX).enumerate() {
        let share = if reason.cause.is_beside() {
            "beside".to_owned()
        } else {
            format!("{:.1}%", reason.share_percent)
        };
        let line = format!(
            "{}. {share:>6}  {}{}\n",
            number + 1,
            if reason.unusual { "! " } else { "" },
            reason.sentence()
        );
        out.push_str(&plain(&line, ascii));
        // What is as long as ever needs no advice, unless it is most of the call.
        if reason.unusual || number == 0 {
            let _ = writeln!(out, "           {}", reason.advice());
        }
    }
    out
}

fn against(explanation: &Explanation, time: &impl Fn(u64) -> String) -> String {
    let earlier = explanation.earlier_calls;
    let calls = if earlier == 1 { "call" } else { "calls" };
    let whose = explanation.program.as_deref().unwrap_or("this program");
    let usual = explanation.usual_total_us.map(|us| {
        format!(
            "usually {}, the median of {earlier} earlier {calls} of {whose}",
            time(us)
        )
    });
    match (explanation.ranked, usual) {
        (Ranked::ByExcess, Some(usual)) => format!("{usual}; ranked by what exceeds the usual, marked !"),
        (Ranked::NothingUnusual, Some(usual)) => {
            format!("{usual}; nothing is out of the ordinary, ranked by share")
        }
        (Ranked::NoUsual | Ranked::ByExcess | Ranked::NothingUnusual, _) => format!(
            "no usual yet: {earlier} earlier {calls} of {whose} in the files, {BASELINE_CALLS_MIN} are needed; ranked by \
             share"
        ),
    }
}

fn plain(text: &str, ascii: bool) -> String {
    if ascii {
        text.replace('µ', "u").replace(|c: char| !c.is_ascii(), "?")
    } else {
        text.to_owned()
    }
}
