//! `MEMGUARANTEE` (Virtuozzo 7): how much of its RAM a container keeps, and whether the host has it to give.

use beancounters::amount::UNLIMITED;
use beancounters::{Bound, Resource, Set};

use super::resources::{bounds, guaranteed_bytes};
use crate::boot::{self, Up};
use crate::config::Node;
use crate::config::settings::Settings;
use crate::config::values::MemGuarantee;
use crate::subject::Subject;
use crate::{Exit, Failure};

/// The bounds with what a share of the RAM promises: the barriers of vmguarpages and oomguarpages, whatever they were.
///
/// # Errors
/// The RAM has no limit to take a share of.
pub(super) fn promised(set: &Set, guarantee: Option<MemGuarantee>) -> Result<Set, Failure> {
    let mut set = set.clone();
    if let Some(MemGuarantee::Percent(percent)) = guarantee {
        let ram = set.get(Resource::Physpages).and_then(|bound| bound.limit().finite()).ok_or_else(|| {
            Failure::new(Exit::NotEnoughBeancounters, "Error: memguarantee is a part of the RAM, which has no limit")
                .hint("Set it together with --ram, or promise pages with --vmguarpages and --oomguarpages.")
        })?;
        let pages = u64::try_from(u128::from(ram) * u128::from(percent) / 100).unwrap_or(ram);
        set.insert(Bound::new(Resource::Vmguarpages, pages, UNLIMITED));
        set.insert(Bound::new(Resource::Oomguarpages, pages, UNLIMITED));
    }
    Ok(set)
}

/// Whether what this container is to keep can be kept, beside what others that run were guaranteed in the same way. What beancounters promise was
/// never held against the host's memory, and is not here.
///
/// # Errors
/// It can't: the sums are in the message.
pub fn fits(node: &Node, container: &Subject) -> Result<(), Failure> {
    let wanted = guaranteed_to(&container.settings)?;
    if wanted == 0 {
        return Ok(());
    }
    let mut others = 0u64;
    for (ctid, up) in boot::present(node)? {
        if up == Up::Running && ctid != container.ctid {
            // One whose configuration can't be read has nothing that could be counted.
            let settings = Subject::load(node, ctid).map(|other| other.settings).unwrap_or_default();
            others = others.saturating_add(guaranteed_to(&settings)?);
        }
    }
    let most = vzrt::overdraft::guaranteeable_bytes();
    if others.saturating_add(wanted) <= most {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Failure::new(
        Exit::Overcommit,
        format!(
            "Unable to guarantee {} MiB: of {} MiB that this host may guarantee, {} MiB are to other running containers",
            mib(wanted),
            mib(most),
            mib(others)
        ),
    )
    .hint("A smaller --memguarantee fits, or --memguarantee auto."))
}

/// What a container is to keep by `MEMGUARANTEE`, in bytes.
fn guaranteed_to(settings: &Settings) -> Result<u64, Failure> {
    match settings.memguarantee {
        Some(MemGuarantee::Percent(percent)) if percent > 0 => Ok(guaranteed_bytes(&bounds(settings)?).unwrap_or(0)),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn a_share_of_the_ram_is_promised_whatever_the_beancounters_say() {
        let settings = |guarantee| Settings {
            bounds: [("physpages", "0:1000"), ("swappages", "0:500")]
                .map(|(name, value)| Bound::parse(name.parse().unwrap(), value).unwrap())
                .into_iter()
                .collect(),
            memguarantee: guarantee,
            ..Settings::default()
        };
        let promised = |guarantee| {
            let set = bounds(&settings(guarantee)).unwrap();
            [Resource::Vmguarpages, Resource::Oomguarpages].map(|resource| set.get(resource).unwrap().barrier().count())
        };
        assert_eq!(promised(Some(MemGuarantee::Percent(30))), [300, 300]);
        assert_eq!(promised(Some(MemGuarantee::Percent(0))), [0, 0]);
        assert_eq!(promised(Some(MemGuarantee::Auto)), promised(None));
        assert_eq!(guaranteed_to(&settings(Some(MemGuarantee::Percent(30)))).unwrap(), 300 * 4096);
        assert_eq!(guaranteed_to(&settings(None)).unwrap(), 0);
    }

    #[test]
    fn without_a_limit_there_is_nothing_to_take_a_share_of() {
        let settings = Settings { memguarantee: Some(MemGuarantee::Percent(10)), ..Settings::default() };
        assert_eq!(bounds(&settings).unwrap_err().exit, Exit::NotEnoughBeancounters);
    }
}
