//! What a command prints: tables and lines for people, one JSON document for scripts.
//!
//! Always true: results go to stdout, everything else (progress, notes, errors) to stderr; with
//! `--json` stdout holds JSON and nothing else, but for commands that print a file; a reader that
//! goes away (`| head`) ends the command quietly.

use crate::exit::{Exit, Failure, one_line};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Where results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// JSON in place of tables.
    pub json: bool,
    /// No notes and no progress.
    pub quiet: bool,
}

impl Out {
    /// Prints `value` as one JSON document, or lets `people` write it for a person.
    pub fn show<T: Serialize + ?Sized>(
        &self,
        value: &T,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.json {
            return self.json_line(value);
        }
        written(|w| people(w))
    }

    /// Prints one JSON document on one line, whatever the form asked for. A command that reports
    /// as it goes prints several.
    pub fn json_line<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value)?;
        written(|w| writeln!(w, "{text}"))
    }

    /// A line beside the result, for a person who watches.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet && !self.json {
            let _ = writeln!(io::stderr(), "{}", text.as_ref());
        }
    }
}

/// Writes to stdout with one flush; a closed pipe is [`Failure::silent`].
pub fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    stdout_result(write(&mut stdout).and_then(|()| stdout.flush()))
}

/// What an error of writing to stdout means for the command.
pub fn stdout_result(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        // The reader has what it wanted; its end is not our failure to report.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(Exit::ReaderGone)),
        Err(e) => Err(Failure::failed(format!("cannot write the result: {e}"))),
    }
}

/// Rows under headings, columns apart by two spaces, no frame: readable, and `awk` can cut it.
///
/// `columns` are headings; one that starts with `>` stands right-aligned, as numbers do. On a
/// terminal long cells wrap to its width, elsewhere a row is always one line.
pub fn table<const N: usize>(columns: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(columns.map(|c| c.trim_start_matches('>').to_uppercase()));
    for row in rows {
        table.add_row(row.map(|cell| one_line(&cell)));
    }
    for (i, heading) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Facts about one thing, one a line: name, then value.
pub fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let line = format!("{name:<width$}  {}", one_line(value));
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// True if a person can be asked: both ends are a terminal.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks before something that cannot be undone. Without a terminal the answer must already have
/// been given by `--yes`.
pub fn confirm(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::usage(format!("{what}: add --yes to do so without being asked")));
    }
    eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was changed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_numbers_right_and_keeps_a_row_on_one_line() {
        let rows =
            vec![["a".to_owned(), "7".to_owned()], ["line\nbreak".to_owned(), "1,000".to_owned()]];
        assert_eq!(
            table(["name", ">files"], rows),
            "NAME        FILES\na               7\nline break  1,000\n"
        );
    }

    #[test]
    fn facts_stand_in_two_columns() {
        let text = facts(&[("size", "1 B".to_owned()), ("digest", "x".to_owned())]);
        assert_eq!(text, "size    1 B\ndigest  x\n");
    }
}
