//! Bars of block characters, exact to an eighth of a column where the font can show it.

/// Left parts of a cell, by eighths filled.
const LEFT_EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
/// Quarters of the axis, where dots help the eye down the rows.
const GRID: usize = 4;

/// The characters a bar is made of.
pub(super) enum Fill {
    /// Eighths of blocks.
    Blocks,
    /// One character for what is covered; another where hardly anything is.
    Cells {
        /// Covered.
        full: char,
        /// Less than half covered, in one cell.
        tiny: char,
    },
}

/// Where a bar stands, in nanoseconds from the start of the axis.
pub(super) struct Extent {
    pub(super) start_ns: i64,
    pub(super) length_ns: u64,
    pub(super) axis_ns: u64,
}

/// One row's cells: the empty part before, the bar, the empty part behind.
pub(super) struct Bar {
    pub(super) before: String,
    pub(super) bar: String,
    pub(super) after: String,
}

/// Draws a bar into `cells` columns. What lies outside the axis is an arrow at its edge.
pub(super) fn draw(extent: &Extent, cells: usize, fill: &Fill, ascii: bool) -> Bar {
    let scale = (cells * 8) as f64 / extent.axis_ns as f64;
    let start = extent.start_ns as f64 * scale;
    let end = (extent.start_ns as f64 + extent.length_ns as f64) * scale;
    let limit = (cells * 8) as f64;
    if end < 0.0 || start > limit || cells == 0 {
        return outside(end < 0.0, cells, ascii);
    }
    // Something can be seen of every span, also of one that ends where the axis does.
    let from = (start.clamp(0.0, limit - 1.0)).floor() as usize;
    let to = (end.clamp(0.0, limit).round() as usize).max(from + 1);
    let (first, last) = (from / 8, (to - 1) / 8);
    let bar = (first..=last).map(|cell| glyph(cell, from, to, fill)).collect();
    Bar {
        before: grid(0, first, cells, ascii),
        bar,
        after: grid(last + 1, cells, cells, ascii),
    }
}

fn glyph(cell: usize, from: usize, to: usize, fill: &Fill) -> char {
    let left = from.max(cell * 8) - cell * 8;
    let right = to.min(cell * 8 + 8) - cell * 8;
    let single = from / 8 == (to - 1) / 8;
    match fill {
        Fill::Cells { full, tiny } => {
            if single && right - left < 4 {
                *tiny
            } else {
                *full
            }
        }
        // Fonts have the right half, but no other right parts.
        Fill::Blocks if left >= 4 && right == 8 => '▐',
        Fill::Blocks if single => LEFT_EIGHTHS[right - left],
        Fill::Blocks => LEFT_EIGHTHS[right],
    }
}

fn outside(left: bool, cells: usize, ascii: bool) -> Bar {
    let arrow = match (left, ascii) {
        (true, false) => '‹',
        (true, true) => '<',
        (false, false) => '›',
        (false, true) => '>',
    };
    if cells == 0 {
        return Bar {
            before: String::new(),
            bar: String::new(),
            after: String::new(),
        };
    }
    let at = if left { 0 } else { cells - 1 };
    Bar {
        before: grid(0, at, cells, ascii),
        bar: arrow.to_string(),
        after: grid(at + 1, cells, cells, ascii),
    }
}

/// Empty cells with a dot at each quarter of the whole.
fn grid(from: usize, to: usize, cells: usize, ascii: bool) -> String {
    let dot = if ascii { '.' } else { '·' };
    (from..to)
        .map(|cell| if is_tick(cell, cells) { dot } else { ' ' })
        .collect()
}

fn is_tick(cell: usize, cells: usize) -> bool {
    (0..GRID).any(|quarter| cell == quarter * cells / GRID) || cell + 1 == cells
}
