//! The writers of the kernel's tables, byte for byte as a 64-bit OpenVZ kernel printed them (K6 `kernel/bc/proc.c`).
//!
//! Readers split on blanks: seven fields in the first row of a container (`101:` first), six in the others.

use std::fmt::{self, Write};

use crate::amount::UNLIMITED;
use crate::counter::{Counter, Counters};
use crate::resource::Resource;

/// The first line of the tables that have one. `vzubc` and others read no version but this.
pub const VERSION: &str = "Version: 2.5";

/// A row of the table of resources that no longer are.
const DUMMY: Counter = Counter { held: 0, maxheld: 0, barrier: UNLIMITED, limit: UNLIMITED, failcnt: 0 };

/// Writes `user_beancounters`: the 24 rows of each container, dummies included and swappages not.
///
/// # Errors
/// `out` refused the text.
pub fn user_beancounters<'a>(
    out: &mut impl Write,
    containers: impl IntoIterator<Item = (u32, &'a Counters)>,
) -> fmt::Result {
    heading(out)?;
    for (id, counters) in containers {
        let rows = Resource::USER_BEANCOUNTERS.map(|resource| match resource {
            Some(resource) => (resource.name(), counters.get(resource).unwrap_or(DUMMY)),
            None => ("dummy", DUMMY),
        });
        block(out, Some(id), rows)?;
    }
    Ok(())
}

/// Writes `bc/resources`: the 21 rows of each container, swappages last.
///
/// # Errors
/// `out` refused the text.
pub fn bc_resources<'a>(
    out: &mut impl Write,
    containers: impl IntoIterator<Item = (u32, &'a Counters)>,
) -> fmt::Result {
    heading(out)?;
    for (id, counters) in containers {
        block(out, Some(id), counters.iter().map(|(resource, row)| (resource.name(), row)))?;
    }
    Ok(())
}

/// Writes `bc/<id>/resources`: the same 21 rows, with neither heading nor number.
///
/// # Errors
/// `out` refused the text.
pub fn bc_id_resources(out: &mut impl Write, counters: &Counters) -> fmt::Result {
    block(out, None, counters.iter().map(|(resource, row)| (resource.name(), row)))
}

fn heading(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "{VERSION}")?;
    let [uid, resource, held, maxheld, barrier, limit, failcnt] =
        ["uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"];
    writeln!(out, "{uid:>10}  {resource:<12} {held:>20} {maxheld:>20} {barrier:>20} {limit:>20} {failcnt:>20}")
}

/// The rows of one container; its number stands in the first of them only.
fn block<'a>(out: &mut impl Write, id: Option<u32>, rows: impl IntoIterator<Item = (&'a str, Counter)>) -> fmt::Result {
    let mut label = id.map(|id| format!("{id}:")).unwrap_or_default();
    for (name, Counter { held, maxheld, barrier, limit, failcnt }) in rows {
        writeln!(out, "{label:>10}  {name:<12} {held:>20} {maxheld:>20} {barrier:>20} {limit:>20} {failcnt:>20}")?;
        label.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bound::Bound;
    use proptest::prelude::*;

    fn basic() -> Counters {
        Counters::new(|resource| match resource {
            Resource::Kmemsize => Counter::new(Bound::new(resource, 14_372_700, 14_790_164), 1_234_567, 2_345_678, 0),
            Resource::Numproc => Counter::new(Bound::new(resource, 240, 240), 23, 240, 17),
            Resource::Vmguarpages => Counter::new(Bound::new(resource, 33_792, UNLIMITED), 0, 0, 0),
            Resource::Swappages => Counter::new(Bound::new(resource, 0, 262_144), 5, 6, 7),
            _ => Counter::new(Bound::unlimited(resource), 1, 2, 0),
        })
    }

    fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
        let mut text = String::new();
        write(&mut text).expect("a string takes everything");
        text
    }

    #[test]
    fn user_beancounters_is_byte_for_byte_the_kernels() {
        let counters = basic();
        let text = written(|out| user_beancounters(out, [(101, &counters), (2_147_483_644, &counters)]));
        assert_eq!(text, include_str!("../testdata/user_beancounters"));
    }

    #[test]
    fn bc_resources_is_byte_for_byte_the_kernels() {
        let counters = basic();
        let text = written(|out| bc_resources(out, [(101, &counters), (102, &counters)]));
        assert_eq!(text, include_str!("../testdata/bc_resources"));
    }

    #[test]
    fn bc_id_resources_is_byte_for_byte_the_kernels() {
        let counters = basic();
        assert_eq!(written(|out| bc_id_resources(out, &counters)), include_str!("../testdata/bc_101_resources"));
    }

    #[test]
    fn every_row_is_129_characters_and_splits_as_readers_expect() {
        let counters = basic();
        let text = written(|out| user_beancounters(out, [(101, &counters)]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "Version: 2.5");
        assert_eq!(lines.len(), 2 + 24);
        for (place, line) in lines[1..].iter().enumerate() {
            assert_eq!(line.len(), 129, "{line:?}");
            assert_eq!(line.split_whitespace().count(), if place <= 1 { 7 } else { 6 }, "{line:?}");
        }
        assert!(lines[2].starts_with("      101:  kmemsize     "));
    }

    proptest! {
        #[test]
        fn what_a_reader_splits_on_blanks_is_what_was_counted(numbers: [[u64; 5]; 21], id: u32) {
            let counters = Counters::new(|resource| {
                let [held, maxheld, barrier, limit, failcnt] = numbers[resource as usize];
                Counter { held, maxheld, barrier, limit, failcnt }
            });
            let text = written(|out| bc_resources(out, [(id, &counters)]));
            for (line, (resource, row)) in text.lines().skip(2).zip(counters.iter()) {
                let mut fields: Vec<_> = line.split_whitespace().collect();
                if resource == Resource::Kmemsize {
                    prop_assert_eq!(fields.remove(0), format!("{id}:"));
                }
                prop_assert_eq!(fields.remove(0), resource.name());
                let read: Vec<u64> = fields.iter().map(|field| field.parse().expect("a number")).collect();
                prop_assert_eq!(read, [row.held, row.maxheld, row.barrier, row.limit, row.failcnt]);
            }
            prop_assert_eq!(text.lines().count(), 2 + 21);
        }
    }

    #[test]
    fn a_host_without_containers_has_the_heading_alone() {
        assert_eq!(written(|out| user_beancounters(out, [])).lines().count(), 2);
    }
}
