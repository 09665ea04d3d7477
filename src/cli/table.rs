//! Tables of text, for people.

/// The rows under their heads, each column as wide as it must be; empty without rows.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut widths = heads.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [heads.map(str::to_owned)].iter().chain(&rows) {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A duration, short and with its unit.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..=999 => format!("{us} µs"),
        1_000..=999_999 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..=119_999_999 => format!("{:.1} s", us as f64 / 1e6),
        120_000_000..=7_199_999_999 => format!("{} min", us / 60_000_000),
        _ => format!("{} h", us / 3_600_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_rows_make_no_table() {
        let rows = [["a", "bbbb"], ["cc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["X", "Y"], rows.into_iter()),
            "  X   Y\n  a   bbbb\n  cc  d\n"
        );
        assert_eq!(table(["X"], std::iter::empty()), "");
    }

    #[test]
    fn durations_say_their_unit() {
        let shown = [7, 1_500, 1_500_000, 120_000_000, 7_200_000_000].map(micros);
        assert_eq!(shown, ["7 µs", "1.5 ms", "1.5 s", "2 min", "2 h"]);
    }
}
