//! Readers of the kernel's tables: what [`format`](mod@crate::format) writes, and what a host with an OpenVZ kernel has.

use crate::counter::Counter;
use crate::format::VERSION;
use crate::resource::Resource;

/// The rows of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Whose they are.
    pub id: u32,
    /// In the order of the table. Its dummies are left out, and so is what this version does not know.
    pub rows: Vec<(Resource, Counter)>,
}

/// A text that is not such a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTable {
    /// The first line names another version, or none.
    #[error("the first line is {0:?}, not {VERSION:?}")]
    Version(String),
    /// A line is not a row.
    #[error("line {line}: {text:?} is not a row of a table of beancounters")]
    Row {
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
    },
}

/// Reads `user_beancounters` or `bc/resources`. Columns may have any width: a 32-bit kernel's are narrower.
///
/// # Errors
/// It has another version, or a line that is not a row.
pub fn tables(text: &str) -> Result<Vec<Block>, BadTable> {
    let mut lines = text.lines().zip(1..);
    let first = lines.next().map_or("", |(line, _)| line).trim();
    if first != VERSION {
        return Err(BadTable::Version(first.to_owned()));
    }
    let mut blocks: Vec<Block> = Vec::new();
    // The heading, and empty lines.
    let rows = lines.filter(|(line, _)| !line.trim().is_empty() && !line.trim_start().starts_with("uid"));
    for (text, line) in rows {
        let bad = || BadTable::Row { line, text: text.to_owned() };
        let mut words = text.split_ascii_whitespace().peekable();
        if let Some(id) = words.next_if(|word| word.ends_with(':')) {
            let id = id.trim_end_matches(':').parse().map_err(|_| bad())?;
            blocks.push(Block { id, rows: Vec::new() });
        }
        let block = blocks.last_mut().ok_or_else(bad)?;
        let name = words.next().ok_or_else(bad)?;
        let numbers = words.map(str::parse).collect::<Result<Vec<u64>, _>>().map_err(|_| bad())?;
        let [held, maxheld, barrier, limit, failcnt] = numbers[..] else { return Err(bad()) };
        if let Some(resource) = Resource::LIVE.into_iter().find(|resource| resource.name() == name) {
            block.rows.push((resource, Counter { held, maxheld, barrier, limit, failcnt }));
        }
    }
    Ok(blocks)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::counter::Counters;
    use crate::format;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ids in proptest::collection::btree_set(any::<u32>(), 1..4), seed in any::<u64>()) {
            let counter = |resource: Resource| {
                let n = seed.wrapping_mul(resource as u64 + 1);
                Counter { held: n / 3, maxheld: n / 2, barrier: n, limit: u64::MAX, failcnt: n % 7 }
            };
            let counters = Counters::new(counter);
            let mut text = String::new();
            format::bc_resources(&mut text, ids.iter().map(|id| (*id, &counters))).unwrap();
            let want: Vec<Block> = ids.iter().map(|id| Block { id: *id, rows: counters.iter().collect() }).collect();
            prop_assert_eq!(tables(&text).unwrap(), want);
        }

        #[test]
        fn no_text_is_too_strange_to_be_looked_at(text in "(Version: 2.5\n)?[0-9a-z: \n]{0,80}") {
            let _ = tables(&text);
        }
    }

    #[test]
    fn a_narrow_table_with_dummies_is_read() {
        let text = "Version: 2.5\n       uid  resource           held    maxheld    barrier      limit    failcnt\n      \
            101: kmemsize 1 2 3 4 5\n dummy 0 0 0 0 0\n numproc 6 7 8 9 10\n 102: numfile 1 1 1 1 0\n";
        let blocks = tables(text).unwrap();
        assert_eq!(blocks.iter().map(|b| (b.id, b.rows.len())).collect::<Vec<_>>(), [(101, 2), (102, 1)]);
        let want = Counter { held: 6, maxheld: 7, barrier: 8, limit: 9, failcnt: 10 };
        assert_eq!(blocks[0].rows[1], (Resource::Numproc, want));
    }

    #[test]
    fn what_is_no_such_table_is_refused() {
        assert_eq!(tables(""), Err(BadTable::Version(String::new())));
        assert_eq!(tables("Version: 2.4\n"), Err(BadTable::Version("Version: 2.4".into())));
        for bad in ["numproc 1 2 3 4 5", "x: numproc 1 2 3 4 5", "1: numproc 1 2 3 4", "1: numproc 1 2 3 4 -5", "1:"] {
            assert!(matches!(tables(&format!("Version: 2.5\n{bad}\n")), Err(BadTable::Row { line: 2, .. })), "{bad}");
        }
    }
}
