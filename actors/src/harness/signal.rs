//! Signals by their names.

/// The standard signals of Linux, which every executor runs on, in the order of their numbers from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of the signal of this name, with or without `SIG`, in either case.
pub fn signal_number(name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let index = NAMES.iter().position(|known| *known == bare)?;
    i32::try_from(index + 1).ok()
}

/// The name of the signal of this number, without `SIG`.
pub fn signal_name(number: i32) -> Option<&'static str> {
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_others_and_those_of_the_kernel() {
        for number in 1..=31 {
            let name = signal_name(number).unwrap();
            assert_eq!(signal_number(name), Some(number));
            assert_eq!(
                signal_number(&format!("sig{}", name.to_lowercase())),
                Some(number)
            );
        }
        let kernel = |signal: rustix::process::Signal| signal.as_raw();
        assert_eq!(
            signal_number("SIGTERM"),
            Some(kernel(rustix::process::Signal::TERM))
        );
        assert_eq!(
            signal_number("WINCH"),
            Some(kernel(rustix::process::Signal::WINCH))
        );
        assert_eq!(signal_number("SYS"), Some(kernel(rustix::process::Signal::SYS)));
        assert_eq!(
            (signal_number("SIGNOTHING"), signal_name(0), signal_name(-1)),
            (None, None, None)
        );
    }
}
