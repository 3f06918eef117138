//! Who starts with the host, and who before whom.

use vzrt::Ctid;

use crate::config::settings::Settings;

/// A container and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) ctid: Ctid,
    pub(crate) bootorder: Option<u64>,
}

impl Place {
    pub(crate) fn of(ctid: Ctid, settings: &Settings) -> Self {
        Self { ctid, bootorder: settings.bootorder }
    }
}

/// Whether a container starts with the host: the one that is to (`ONBOOT=yes`), and the one that ran when the host went down, unless it is
/// not to (`ONBOOT=no`).
pub(crate) fn starts(settings: &Settings, ran: bool) -> bool {
    settings.onboot.unwrap_or(ran)
}

/// In the order in which they start: the highest `BOOTORDER` first, those without one last; of equal ones the lower number first.
pub(crate) fn for_start(mut places: Vec<Place>) -> Vec<Place> {
    places.sort_unstable_by(|a, b| b.bootorder.cmp(&a.bootorder).then(a.ctid.cmp(&b.ctid)));
    places
}

/// In the order in which they stop: the other way round.
pub(crate) fn for_stop(places: Vec<Place>) -> Vec<Place> {
    let mut places = for_start(places);
    places.reverse();
    places
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    fn place(ctid: u32, bootorder: Option<u64>) -> Place {
        Place { ctid: ctid.to_string().parse().unwrap(), bootorder }
    }

    #[test]
    fn the_highest_starts_first_and_stops_last() {
        let places =
            vec![place(103, None), place(101, Some(1)), place(105, Some(9)), place(102, None), place(104, Some(1))];
        let numbers = |list: Vec<Place>| list.into_iter().map(|p| p.ctid.get()).collect::<Vec<_>>();
        assert_eq!(numbers(for_start(places.clone())), [105, 101, 104, 102, 103]);
        assert_eq!(numbers(for_stop(places)), [103, 102, 104, 101, 105]);
    }

    #[test]
    fn who_ran_starts_again_unless_it_is_not_to() {
        let with = |onboot| Settings { onboot, ..Settings::default() };
        assert!(starts(&with(Some(true)), false) && starts(&with(None), true));
        assert!(!starts(&with(Some(false)), true) && !starts(&with(None), false));
    }
}
