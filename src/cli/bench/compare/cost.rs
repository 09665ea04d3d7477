//! What serving costs, as the kernel has it: memory and processor time of a server's processes and all that they started.

use std::collections::HashMap;

/// What one process is, of what `/proc/PID/stat` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    parent: u32,
    /// Its own, and that of all its children that were waited for.
    ticks: u64,
}

/// Reads a line of `/proc/PID/stat`; the name in it may contain anything.
fn stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The state is field 3 of the manual page, and 0 here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = [14, 15, 16, 17].map(field).into_iter().sum::<Option<u64>>()?;
    Some(Stat {
        parent: u32::try_from(field(4)?).ok()?,
        ticks,
    })
}

/// The proportional share of memory that `/proc/PID/smaps_rollup` says, in KiB.
fn pss_kib(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The roots and all that descends from them.
fn tree(processes: &HashMap<u32, Stat>, roots: &[u32]) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut next: Vec<u32> = roots
        .iter()
        .copied()
        .filter(|root| processes.contains_key(root))
        .collect();
    while let Some(pid) = next.pop() {
        if found.contains(&pid) {
            continue;
        }
        found.push(pid);
        next.extend(
            processes
                .iter()
                .filter(|(_, stat)| stat.parent == pid)
                .map(|(child, _)| *child),
        );
    }
    found
}

fn processes() -> HashMap<u32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat(&line)?))
        })
        .collect()
}

/// Processor time in microseconds, of the kernel's own precision of a hundredth of a second.
pub(crate) fn processor_us(roots: &[u32]) -> u64 {
    let all = processes();
    let ticks: u64 = tree(&all, roots)
        .iter()
        .filter_map(|pid| all.get(pid))
        .map(|stat| stat.ticks)
        .sum();
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Memory in KiB, what is shared counted once.
pub(crate) fn memory_kib(roots: &[u32]) -> u64 {
    let pss = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    tree(&processes(), roots)
        .iter()
        .filter_map(pss)
        .filter_map(|text| pss_kib(&text))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_what_it_likes() {
        let line = "7 (a) b (c)) S 4 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 5 1 2";
        assert_eq!(
            stat(line),
            Some(Stat {
                parent: 4,
                ticks: 110
            })
        );
        assert_eq!(stat("7 (cut"), None);
        assert_eq!(stat("7 (a) S 4"), None);
    }

    #[test]
    fn shared_memory_is_counted_by_its_share() {
        assert_eq!(pss_kib("55-66 ---p\nRss:  900 kB\nPss:  123 kB\n"), Some(123));
        assert_eq!(pss_kib("Rss: 1 kB"), None);
    }

    #[test]
    fn a_server_is_all_that_descends_from_it() {
        let of = |parent| Stat { parent, ticks: 1 };
        let all = HashMap::from([(1, of(0)), (5, of(1)), (6, of(5)), (7, of(6)), (9, of(1))]);
        let mut found = tree(&all, &[5, 8]);
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7]);
    }

    #[test]
    fn this_process_has_memory_and_has_used_a_processor() {
        let own = [std::process::id()];
        assert!(memory_kib(&own) > 100);
        assert_eq!(processor_us(&[]), 0);
        assert!(processes().contains_key(&own[0]));
    }
}
