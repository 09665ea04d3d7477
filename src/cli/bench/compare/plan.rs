//! How much is measured: commands, samples, rounds.

use std::rc::Rc;
use std::time::Duration;

use super::child;
use super::measure::Measure;
use super::peer::{Name, Trouble};
use super::task::{Expected, Task};

/// The longest that samples of one peer and one round go on; a slow peer has fewer of them.
const SLICE: Duration = Duration::from_millis(1_500);
const QUICK_SLICE: Duration = Duration::from_millis(200);
/// Rounds at a latency, at most: they take long, and are told apart by whole round trips.
const FAR_ROUNDS_MAX: usize = 2;
/// The numbers whose every byte is compared: 14 MB.
const NUMBERS: &str = "2000000";
const QUICK_NUMBERS: &str = "100000";

/// The commands.
#[derive(Debug)]
pub(crate) struct Tasks {
    pub(crate) nothing: Rc<Task>,
    pub(crate) word: Task,
    pub(crate) numbers: Task,
    flood: (Task, u64),
    far_flood: (Task, u64),
    pub(crate) echo: Vec<String>,
    pub(crate) terminal_echo: Vec<String>,
    pub(crate) flood_for_ever: Vec<String>,
}

impl Tasks {
    /// Finds the programs, and learns from a bare run what the numbers must be.
    pub(crate) async fn find(quick: bool) -> Result<Self, Trouble> {
        let [nothing, word, head, cat, shell, count] =
            ["true", "echo", "head", "cat", "sh", "seq"].map(child::program);
        let (nothing, word, head, cat, shell, count) = (nothing?, word?, head?, cat?, shell?, count?);
        let flood = |bytes: u64| {
            let count = bytes.to_string();
            let argv = [head.as_str(), "-c", count.as_str(), "/dev/zero"];
            (Task::new(argv, Expected::Zeros(bytes)), bytes)
        };
        let numbers = [count.as_str(), "1", if quick { QUICK_NUMBERS } else { NUMBERS }];
        let unknown = Expected::Digest {
            bytes: 0,
            sha256: Vec::new(),
        };
        let numbers = Task::new(numbers, unknown);
        let (_, tally, _) = child::tally(child::command(&numbers.argv), &numbers).await?;
        let expected = Expected::Digest {
            bytes: tally.bytes(),
            sha256: tally.sha256().unwrap_or_default(),
        };
        Ok(Self {
            nothing: Rc::new(Task::new([&nothing], Expected::Nothing)),
            word: Task::new([&word, "x"], Expected::Text("x\n")),
            numbers: Task { expected, ..numbers },
            flood: flood(if quick { 4 << 20 } else { 128 << 20 }),
            far_flood: flood(if quick { 1 << 20 } else { 16 << 20 }),
            echo: vec![cat.clone()],
            // Byte by byte, and no echo of the terminal's own beside the program's.
            terminal_echo: [shell.as_str(), "-c", "stty raw -echo; echo ready; exec cat"]
                .map(str::to_owned)
                .to_vec(),
            flood_for_ever: vec![cat, "/dev/zero".to_owned()],
        })
    }
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) tasks: Tasks,
}

impl Plan {
    pub(crate) fn rounds(&self, measure: Measure, round_trip: Duration) -> usize {
        if measure.is_taken_once() {
            1
        } else if round_trip.is_zero() {
            self.rounds
        } else {
            self.rounds.min(FAR_ROUNDS_MAX)
        }
    }

    /// Of one round and peer.
    pub(crate) fn samples(&self, measure: Measure, round_trip: Duration) -> usize {
        let (near, quick, far) = match measure {
            Measure::RoundTrip => (100, 10, 5),
            Measure::OneShot => (40, 5, 5),
            Measure::InFlight1 => (30, 4, 3),
            Measure::InFlight8 => (80, 8, 16),
            Measure::InFlight32 => (160, 32, 64),
            Measure::Throughput | Measure::IdleMemory => (1, 1, 1),
            Measure::EchoPipe
            | Measure::EchoPipeFlooded
            | Measure::EchoTerminal
            | Measure::EchoTerminalFlooded => (100, 10, 5),
            Measure::BehindPoll => (2, 1, 1),
            Measure::Cold => (4, 1, 2),
            Measure::Processor => (240, 16, 0),
        };
        match (self.quick, round_trip.is_zero()) {
            (false, true) => near,
            (true, true) => quick,
            (false, false) => far,
            (true, false) => far.min(quick),
        }
    }

    pub(crate) fn slice(&self) -> Duration {
        if self.quick { QUICK_SLICE } else { SLICE }
    }

    pub(crate) fn warm_up(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Those that are there before any is weighed, and those that are. Together with the other way to the same executor
    /// they stay below what it allows a client.
    pub(crate) fn idle_sessions(&self, name: Name) -> (usize, usize) {
        match (name, self.quick) {
            // A process or two for each.
            (Name::Ssh, true) => (1, 1),
            (Name::Ssh, false) => (1, 6),
            (
                Name::Bare | Name::Direct | Name::Relay | Name::Json | Name::Codex | Name::CodexQuick,
                quick,
            ) => {
                if quick {
                    (4, 8)
                } else {
                    (8, 48)
                }
            }
        }
    }

    /// What a child writes, and how many bytes that is.
    pub(crate) fn flood(&self, round_trip: Duration) -> (&Task, u64) {
        let (task, bytes) = if round_trip.is_zero() {
            &self.tasks.flood
        } else {
            &self.tasks.far_flood
        };
        (task, *bytes)
    }
}
