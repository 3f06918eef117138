//! The second level in `vzquota`: limits of users and groups inside, from outside.

use ::quota::project::Status;
use ::quota::quotactl::Kind;
use ::quota::users::{Grace, Users};
use ::quota::{CallError, Limit, SoftHard, image};
use clap::ArgMatches;
use serde::Serialize;

use super::{Refusal, left, now_s, plain};
use crate::config::idrange::WIDTH;
use crate::decide;
use crate::subject::Subject;

const KINDS: [(Kind, &str); 2] = [(Kind::User, "user"), (Kind::Group, "group")];

/// The quotas of the users and groups of a mounted container.
pub(super) struct Ugids {
    users: Users,
    /// How many may have limits.
    most: u32,
}

/// What `-t` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether there are any, in force.
    on: bool,
    /// How many users and groups use something or have limits.
    total: u64,
    /// How many may have limits.
    limit: u32,
    /// Whether no more may.
    exceeded: bool,
    grace: Vec<Times>,
    objects: Vec<Object>,
}

#[derive(Debug, Serialize)]
struct Times {
    #[serde(rename = "type")]
    kind: &'static str,
    block_s: u64,
    inode_s: u64,
}

#[derive(Debug, Serialize)]
struct Object {
    id: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    used_kib: u64,
    blocks_kib: SoftHard,
    blocks_expire_s: Option<u64>,
    inodes_used: u64,
    inodes: SoftHard,
    inodes_expire_s: Option<u64>,
}

impl Ugids {
    /// Those of a container; `None` where there are none in force: it has none, is not mounted, or the kernel has none.
    pub(super) fn of(container: &Subject) -> Result<Option<Self>, Refusal> {
        let (Some(most), Some(file)) = (container.settings.user_quota(), decide::image_of(container)) else {
            return Ok(None);
        };
        let Some(device) = image::attached(&file).map_err(|e| Refusal::call(&e))? else { return Ok(None) };
        let users = Users::on(device.number());
        Ok(users.grace(Kind::User).is_ok().then_some(Self { users, most: most.get() }))
    }

    /// Does what `setlimit2` says.
    pub(super) fn set(&self, own: &ArgMatches) -> Result<(), Refusal> {
        let number = |name: &str| own.get_one::<u64>(name).copied();
        let (kind, id) = match (number("uid"), number("gid")) {
            (Some(id), None) => (Kind::User, id),
            (None, Some(id)) => (Kind::Group, id),
            _ => return Err(Refusal(2, "setlimit2 wants one of -u UID and -g GID".into())),
        };
        let id = u32::try_from(id).ok().filter(|id| *id < WIDTH);
        let id = id.ok_or_else(|| Refusal(2, format!("the container has ids below {WIDTH}")))?;
        let now = self.users.status(kind, id).map_err(failed)?;
        let space_kib = changed(now.space_kib, number("block-softlimit"), number("block-hardlimit"))?;
        let inodes = changed(now.inodes, number("inode-softlimit"), number("inode-hardlimit"))?;
        self.users.set_limits(kind, id, space_kib, inodes).map_err(failed)?;
        let (space_s, inodes_s) = (number("block-exptime"), number("inode-exptime"));
        if space_s.or(inodes_s).is_some() {
            let now = self.users.grace(kind).map_err(failed)?;
            let grace = Grace { space_s: space_s.unwrap_or(now.space_s), inodes_s: inodes_s.unwrap_or(now.inodes_s) };
            self.users.set_grace(kind, grace).map_err(failed)?;
        }
        Ok(())
    }

    /// What there is to tell.
    pub(super) fn report(&self) -> Result<Report, Refusal> {
        let (mut grace, mut objects, mut limited) = (Vec::new(), Vec::new(), 0);
        for (kind, name) in KINDS {
            let times = self.users.grace(kind).map_err(failed)?;
            grace.push(Times { kind: name, block_s: times.space_s, inode_s: times.inodes_s });
            let mut from = 0;
            while let Some((id, status)) = self.users.next(kind, from).map_err(failed)? {
                limited += u64::from(status.is_limited());
                objects.push(Object::new(id, name, &status));
                let Some(after) = id.checked_add(1) else { break };
                from = after;
            }
        }
        let total = objects.len() as u64;
        Ok(Report { on: true, total, limit: self.most, exceeded: limited >= u64::from(self.most), grace, objects })
    }
}

impl Report {
    /// Of a container that has none in force; `limit` is what its configuration says.
    pub(super) fn off(limit: u32) -> Self {
        Self { on: false, total: 0, limit, exceeded: false, grace: Vec::new(), objects: Vec::new() }
    }

    /// Whether there are any.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// OpenVZ's tables. What is in the kernel is loaded, and all of it is.
    pub(super) fn text(&self) -> String {
        let (on, active) = if self.on { ("on", "active") } else { ("off", "inactive") };
        let yes = if self.exceeded { "yes" } else { "no" };
        let mut out = format!(
            "User/group quota: {on},{active}\nUgids: loaded {0}, total {0}, limit {1}\nUgid limit was exceeded: {yes}\n",
            self.total, self.limit
        );
        if !self.on {
            return out;
        }
        out.push_str("\nUser/group grace times and quotafile flags:\n type block_exp_time inode_exp_time dqi_flags\n");
        for times in &self.grace {
            out.push_str(&format!(
                "{:>5} {:>14} {:>14} {:>9}\n",
                times.kind,
                left(times.block_s),
                left(times.inode_s),
                "0h"
            ));
        }
        out.push_str(&format!(
            "\nUser/group objects:\n{:<11} {:>5} {:>9} {:>11} {:>11} {:>11} {:>8} {:>6}\n",
            "ID", "type", "resource", "used", "softlimit", "hardlimit", "grace", "status"
        ));
        self.objects.iter().for_each(|object| out.push_str(&object.text(now_s())));
        out
    }
}

impl Object {
    fn new(id: u32, kind: &'static str, status: &Status) -> Self {
        Self {
            id,
            kind,
            used_kib: status.space_used_kib,
            blocks_kib: status.space_kib,
            blocks_expire_s: status.space_grace_ends_s,
            inodes_used: status.inodes_used,
            inodes: status.inodes,
            inodes_expire_s: status.inodes_grace_ends_s,
        }
    }

    /// No limit is 0 here, as users and groups have it.
    fn text(&self, now_s: u64) -> String {
        let row = |resource: &str, used: u64, limits: SoftHard, expires_s: Option<u64>| {
            let [soft, hard] =
                [limits.soft, limits.hard].map(|limit| if limit == Limit::Unlimited { 0 } else { plain(limit) });
            let grace = expires_s.map(|ends| left(ends.saturating_sub(now_s))).unwrap_or_default();
            let (id, kind) = (self.id, self.kind);
            format!("{id:<11} {kind:>5} {resource:>9} {used:>11} {soft:>11} {hard:>11} {grace:>8} {:>6}\n", "loaded")
        };
        row("1k-blocks", self.used_kib, self.blocks_kib, self.blocks_expire_s)
            + &row("inodes", self.inodes_used, self.inodes, self.inodes_expire_s)
    }
}

/// Limits with what is given in them; 0 is none, as for setquota(8).
fn changed(now: SoftHard, soft: Option<u64>, hard: Option<u64>) -> Result<SoftHard, Refusal> {
    let limit = |given: Option<u64>, now| match given {
        None => now,
        Some(0) => Limit::Unlimited,
        Some(n) if n < super::UNLIMITED => Limit::Of(n),
        Some(_) => Limit::Unlimited,
    };
    let limits = SoftHard { soft: limit(soft, now.soft), hard: limit(hard, now.hard) };
    if limits.soft != Limit::Unlimited && limits.soft > limits.hard {
        let (soft, hard) = (limits.soft, limits.hard);
        return Err(Refusal(2, format!("the soft limit {soft} is above the hard limit {hard}")));
    }
    Ok(limits)
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn failed(e: CallError) -> Refusal {
    Refusal::call(&e)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn the_tables_are_those_of_openvz() {
        let limits = SoftHard { soft: Limit::Unlimited, hard: Limit::Of(100) };
        let object = Object {
            id: 1000,
            kind: "user",
            used_kib: 38_220,
            blocks_kib: limits,
            blocks_expire_s: None,
            inodes_used: 45,
            inodes: SoftHard::UNLIMITED,
            inodes_expire_s: None,
        };
        assert_eq!(
            object.text(0),
            "1000         user 1k-blocks       38220           0         100          loaded\n\
             1000         user    inodes          45           0           0          loaded\n"
        );
        let grace = vec![Times { kind: "user", block_s: 604_800, inode_s: 3600 }];
        let report = Report { on: true, total: 1, limit: 20, exceeded: false, grace, objects: vec![object] };
        let text = report.text();
        assert!(text.starts_with(
            "User/group quota: on,active\nUgids: loaded 1, total 1, limit 20\nUgid limit was exceeded: no\n"
        ));
        assert!(text.contains("\n user          7d 0h          1h 0m        0h\n"), "{text}");
        assert_eq!(Report::off(0).text().lines().count(), 3);
    }

    #[test]
    fn a_limit_that_is_not_given_stays_and_0_takes_it_away() {
        let now = SoftHard { soft: Limit::Of(5), hard: Limit::Of(10) };
        let set = |soft, hard| changed(now, soft, hard).map_err(|refusal| refusal.0);
        assert_eq!(set(None, Some(20)), Ok(SoftHard { soft: Limit::Of(5), hard: Limit::Of(20) }));
        assert_eq!(set(Some(0), Some(0)).unwrap(), SoftHard::UNLIMITED);
        assert_eq!(set(Some(11), None), Err(2));
    }
}
