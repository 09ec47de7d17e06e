//! What commands print: tables for people, JSON for machines. Results go to standard output by [`say!`], what is
//! said about them to standard error by [`note!`]. Neither panics as `println!` does where a reader has gone.

use std::io::{ErrorKind, Write, stdout};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::failure::Closed;

/// Prints a line on standard output; an error where that cannot be.
macro_rules! say {
    ($($line:tt)*) => { $crate::output::line(format_args!($($line)*)) };
}
/// Prints a line on standard error, if anybody listens.
macro_rules! note {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}
pub(crate) use {note, say};

/// What [`say!`] does.
pub fn line(line: std::fmt::Arguments<'_>) -> Result<()> {
    match writeln!(stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a value as JSON on standard output.
pub fn json(value: &impl Serialize) -> Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?)
}

/// Prints rows under a header, columns aligned: the first to the left, the rest to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (i, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            text += &if i == 0 { format!("{cell}{gap}") } else { format!("  {gap}{cell}") };
        }
        say!("{}", text.trim_end())
    };
    line(header.to_vec())?;
    say!("{}", "─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)))?;
    rows.iter().try_for_each(|row| line(row.iter().map(String::as_str).collect()))
}

/// A number with its thousands apart: 11,689,512.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in millions, with two decimals.
pub fn millions(n: u64) -> String {
    format!("{:.2}", n as f64 / 1e6)
}

/// A number with its noun: 1 image, 2 images.
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A share as a percentage with two decimals.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(11_689_512), "11,689,512");
    }
}
