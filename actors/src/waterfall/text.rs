//! The picture in a terminal, or plain in a file.

use std::fmt::Write;

use dwell_messages::Role;

use crate::trace_file::{Trace, role_name};

use super::account::Account;
use super::bar::{self, Bar, Extent, Fill};
use super::model::{Class, ClockError, Model, Row};
use super::units::{coarse, duration, micro};

mod paint;
use paint::{Ink, Paint};

/// The narrowest picture, in columns.
pub const WIDTH_MIN: usize = 60;
/// The widest picture, in columns.
pub const WIDTH_MAX: usize = 240;

/// Role letter, mark of the critical path, mark of the kind, and a space.
const LEAD_COLUMNS: usize = 4;
/// Eleven columns of duration, seven of share, and the space before each.
const NUMBER_COLUMNS: usize = 20;
/// Levels of indentation that are drawn; deeper rows stand below each other.
const INDENT_LEVELS_MAX: usize = 12;
const NAME_COLUMNS_MIN: usize = 18;
/// Columns of the account's own bars.
const ACCOUNT_BAR_COLUMNS: usize = 16;

/// How to draw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Columns; taken between [`WIDTH_MIN`] and [`WIDTH_MAX`].
    pub width: usize,
    /// Whether to write colours. Without, the output has no escape sequence.
    pub color: bool,
    /// Whether to keep to ASCII.
    pub ascii: bool,
}

/// Draws a trace, every line ended. A trace without spans is one line saying so.
pub fn render(trace: &Trace, options: &Options) -> String {
    let Some(model) = Model::new(trace) else {
        return format!("trace {} has no spans\n", trace.trace_id);
    };
    let sheet = Sheet::new(&model, options);
    let mut out = String::new();
    sheet.heading(&mut out);
    for row in &model.rows {
        sheet.row(&mut out, row);
    }
    if !model.orphans.is_empty() {
        out.push('\n');
        sheet.line(&mut out, Ink::Warning, "orphans");
        for row in &model.orphans {
            sheet.row(&mut out, row);
        }
    }
    sheet.footer(&mut out);
    out
}

struct Sheet<'a> {
    model: &'a Model,
    paint: Paint,
    name_columns: usize,
    bar_columns: usize,
}

impl<'a> Sheet<'a> {
    fn new(model: &'a Model, options: &Options) -> Self {
        let width = options.width.clamp(WIDTH_MIN, WIDTH_MAX);
        let paint = Paint {
            color: options.color,
            ascii: options.ascii,
        };
        let rows = model.rows.iter().chain(&model.orphans);
        let longest = rows
            .map(|row| label(row, &paint).chars().count())
            .max()
            .unwrap_or(0);
        let name_columns = longest.clamp(NAME_COLUMNS_MIN, width * 2 / 5);
        let bar_columns = width - LEAD_COLUMNS - name_columns - 1 - NUMBER_COLUMNS;
        Self {
            model,
            paint,
            name_columns,
            bar_columns,
        }
    }

    fn heading(&self, out: &mut String) {
        let model = self.model;
        let wall = duration(model.wall_ns, self.paint.ascii);
        let title = format!("{} {}", model.root_name, wall.trim_start());
        self.paint.write(out, Ink::Strong, &title);
        out.push_str("  ");
        self.paint
            .write(out, Ink::Dim, &format!("trace {}", model.trace_id));
        out.push('\n');
        out.push_str(&" ".repeat(LEAD_COLUMNS + self.name_columns + 1));
        self.paint.write(out, Ink::Dim, self.axis().trim_end());
        out.push('\n');
    }

    /// Times at the quarters of the axis, as many as have room.
    fn axis(&self) -> String {
        let cells = self.bar_columns;
        let mut text: Vec<char> = vec![' '; cells];
        let at = |quarter: usize| {
            let ns = self.model.axis_start_ns as f64 + self.model.axis_ns as f64 * quarter as f64 / 4.0;
            coarse(ns, self.paint.ascii)
        };
        let end = at(4);
        let mut place = |from: usize, label: &str| {
            let length = label.chars().count();
            let free = from.saturating_sub(1)..(from + length + 1).min(cells);
            if from + length <= cells && text[free].iter().all(|c| *c == ' ') {
                text.splice(from..from + length, label.chars());
            }
        };
        place(0, &at(0));
        place(cells.saturating_sub(end.chars().count()), &end);
        for quarter in [2, 1, 3] {
            place(quarter * cells / 4, &at(quarter));
        }
        text.into_iter().collect()
    }

    fn row(&self, out: &mut String, row: &Row) {
        let ink = ink(row);
        self.paint.write(out, role_ink(row.role), letter(row.role));
        let on_path = if row.critical { self.paint.critical() } else { " " };
        self.paint.write(out, Ink::Critical, on_path);
        self.paint.write(out, ink, self.paint.mark(row.class));
        out.push(' ');
        let name = fit(&label(row, &self.paint), self.name_columns, self.paint.ascii);
        let name_ink = if row.error.is_some() {
            Ink::Error
        } else if row.class == Class::Stage {
            Ink::Plain
        } else {
            ink
        };
        self.paint.write(out, name_ink, &name);
        out.push(' ');
        let Bar { before, bar, after } = self.bar(row);
        self.paint.write(out, Ink::Dim, &before);
        self.paint.write(out, ink, &bar);
        self.paint.write(out, Ink::Dim, &after);
        let _ = write!(out, " {:>11}", duration(row.duration_ns, self.paint.ascii));
        self.paint.write(
            out,
            Ink::Dim,
            &format!(" {:>7}", percent(self.model.share(row.duration_ns))),
        );
        out.push('\n');
    }

    fn bar(&self, row: &Row) -> Bar {
        let extent = Extent {
            start_ns: row.start_ns.saturating_sub(self.model.axis_start_ns),
            length_ns: row.extent_ns,
            axis_ns: self.model.axis_ns,
        };
        let fill: Fill = self.paint.fill(row.class, row.fold.is_some());
        bar::draw(&extent, self.bar_columns, &fill, self.paint.ascii)
    }

    fn footer(&self, out: &mut String) {
        if let Some(account) = &self.model.account {
            out.push('\n');
            self.account(out, account);
        }
        let (sign, unit) = (self.paint.give_or_take(), micro(self.paint.ascii));
        out.push('\n');
        let legend = format!(
            "{} on the critical path: the end waited for it",
            self.paint.critical()
        );
        self.line(out, Ink::Dim, &legend);
        for (role, clock) in &self.model.clocks {
            let text = format!(
                "{} clock {:+} {unit} {sign} {} {unit}: moved in the drawing only",
                role_name(*role),
                clock.offset_us,
                clock.error_us
            );
            self.line(out, Ink::Dim, &text);
        }
        for warning in &self.model.warnings {
            self.line(out, Ink::Warning, &format!("! {warning}"));
        }
    }

    fn account(&self, out: &mut String, account: &Account) {
        let mut names = account
            .machines
            .iter()
            .flat_map(|machine| machine.segments.iter().map(|(name, _)| name));
        let widest = names.by_ref().map(|name| name.chars().count()).max().unwrap_or(0);
        let machines = account
            .machines
            .iter()
            .map(|machine| machine.name.chars().count());
        let table = Table {
            sheet: self,
            account,
            machine_columns: machines.max().unwrap_or(0).clamp(8, 16),
            segment_columns: widest.clamp("unattributed".len(), 28),
        };
        table.entry(out, "wall", "", account.wall_us, Ink::Strong);
        for machine in &account.machines {
            for (index, (segment, us)) in machine.segments.iter().enumerate() {
                let name = if index == 0 { machine.name.as_str() } else { "" };
                table.entry(out, name, segment, *us as f64, Ink::Plain);
            }
            if let Some(us) = machine.unattributed_us {
                let name = if machine.segments.is_empty() {
                    machine.name.as_str()
                } else {
                    ""
                };
                table.entry(out, name, "unattributed", us as f64, Ink::Dim);
            }
        }
        table.entry(out, "sum", "", account.sum_us as f64, Ink::Strong);
        let ink = if account.is_off() {
            Ink::Warning
        } else {
            Ink::Strong
        };
        table.entry(out, "unattributed", "", account.unattributed_us, ink);
    }

    fn line(&self, out: &mut String, ink: Ink, text: &str) {
        self.paint.write(out, ink, text);
        out.push('\n');
    }
}

struct Table<'a> {
    sheet: &'a Sheet<'a>,
    account: &'a Account,
    machine_columns: usize,
    segment_columns: usize,
}

impl Table<'_> {
    fn entry(&self, out: &mut String, machine: &str, segment: &str, us: f64, ink: Ink) {
        let paint = &self.sheet.paint;
        let unit = micro(paint.ascii);
        let share = self.account.share(us);
        let name = if segment.is_empty() {
            fit(
                machine,
                self.machine_columns + 1 + self.segment_columns,
                paint.ascii,
            )
        } else {
            let machine = fit(machine, self.machine_columns, paint.ascii);
            format!("{machine} {}", fit(segment, self.segment_columns, paint.ascii))
        };
        paint.write(
            out,
            ink,
            &format!("  {name} {us:>10.0} {unit} {:>7}", percent(share)),
        );
        if !segment.is_empty() {
            let length_ns = (share.clamp(0.0, 100.0) * 1000.0) as u64;
            let extent = Extent {
                start_ns: 0,
                length_ns,
                axis_ns: 100_000,
            };
            let bar = bar::draw(
                &extent,
                ACCOUNT_BAR_COLUMNS,
                &paint.fill(Class::Stage, false),
                paint.ascii,
            )
            .bar;
            if length_ns > 0 {
                out.push(' ');
                paint.write(out, Ink::Dim, &bar);
            }
        }
        out.push('\n');
    }
}

/// The tree's lines, the name, and what makes the row special.
fn label(row: &Row, paint: &Paint) -> String {
    let [pipe, space, tee, corner] = paint.tree();
    let mut text = String::new();
    for depth in 1..row.depth.min(INDENT_LEVELS_MAX) {
        text.push_str(if row.trail >> depth & 1 == 1 { pipe } else { space });
    }
    if row.depth > 0 {
        text.push_str(if row.last { corner } else { tee });
    }
    text.push_str(&row.name);
    if let Some(fold) = &row.fold {
        let _ = write!(text, " {}{}", if paint.ascii { "x" } else { "×" }, fold.count);
        if fold.below > 0 {
            let _ = write!(text, " (+{} below)", fold.below);
        }
    }
    match row.clock_error {
        Some(ClockError::Within(us)) => {
            let _ = write!(text, " {}{us} {}", paint.give_or_take(), micro(paint.ascii));
        }
        Some(ClockError::Unknown) => {
            let _ = write!(text, " {}?", paint.give_or_take());
        }
        None => {}
    }
    if let Some(error) = &row.error {
        let _ = write!(text, " {} {error}", if paint.ascii { "!" } else { "✗" });
    }
    text
}

fn ink(row: &Row) -> Ink {
    match (row.class, row.error.is_some()) {
        (_, true) => Ink::Error,
        (Class::Mailbox, false) => Ink::Mailbox,
        (Class::Turn, false) => Ink::Turn,
        (Class::Stage, false) => role_ink(row.role),
    }
}

fn role_ink(role: Role) -> Ink {
    match role {
        Role::Harness => Ink::Harness,
        Role::Executor => Ink::Executor,
        Role::Relay => Ink::Relay,
    }
}

fn letter(role: Role) -> &'static str {
    match role {
        Role::Harness => "H",
        Role::Executor => "E",
        Role::Relay => "R",
    }
}

/// Exactly `columns` columns: padded, or cut with an ellipsis.
fn fit(text: &str, columns: usize, ascii: bool) -> String {
    let length = text.chars().count();
    if length <= columns {
        return format!("{text}{}", " ".repeat(columns - length));
    }
    let ellipsis = if ascii { '~' } else { '…' };
    text.chars().take(columns - 1).chain([ellipsis]).collect()
}

fn percent(share: f64) -> String {
    if share > 9_999.0 {
        ">9999%".to_owned()
    } else {
        format!("{share:.1}%")
    }
}
