//! `vzctl check`: what this host can do for containers, and what each missing thing costs.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::io;
use crate::config::Node;
use crate::decide;
use crate::failure::{Outcome, chain};
use crate::{Exit, Failure};

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) feature: String,
    pub(super) available: bool,
    pub(super) found: String,
    pub(super) needed_by: String,
    pub(super) without: String,
    /// No container runs without it.
    pub(super) essential: bool,
}

/// Ends with 5 where something essential is missing.
pub(super) fn run(node: &Node, json: bool) -> Outcome {
    let mut rows = kernel();
    rows.extend(disk(node)?);
    rows.extend(cgroups(node)?);
    rows.extend(network(node));
    rows.extend(programs());
    let mut out = std::io::stdout().lock();
    let text = if json {
        serde_json::to_string_pretty(&rows).map_err(|e| Failure::from_error(Exit::System, &e))?
    } else {
        table(&rows)
    };
    writeln!(out, "{text}").map_err(|e| Failure::from_error(Exit::System, &e))?;
    let usable = rows.iter().all(|r| r.available || !r.essential);
    Ok(if usable { Exit::Success } else { Exit::UnusableKernel })
}

fn table(rows: &[Row]) -> String {
    let width = |get: fn(&Row) -> &str| rows.iter().map(|r| get(r).chars().count()).max().unwrap_or(0);
    let (feature, needed) = (width(|r| &r.feature), width(|r| &r.needed_by));
    let mut lines = vec![format!(
        "{:<feature$}  {:<3}  {:<needed$}  {}",
        "FEATURE", "HAS", "NEEDED BY", "FOUND, OR WHAT HAPPENS WITHOUT"
    )];
    for row in rows {
        let (has, note) =
            if row.available { ("yes", row.found.clone()) } else { ("no", format!("{} ({})", row.without, row.found)) };
        lines.push(
            format!("{:<feature$}  {has:<3}  {:<needed$}  {note}", row.feature, row.needed_by).trim_end().to_owned(),
        );
    }
    lines.join("\n")
}

fn kernel() -> Vec<Row> {
    let found = |r: &Result<(), vzrt::error::Failed>| match r {
        Ok(()) => String::new(),
        Err(e) => e.one_line(),
    };
    vzrt::support::probe()
        .into_iter()
        .map(|p| Row {
            feature: p.feature.into(),
            available: p.result.is_ok(),
            found: found(&p.result),
            needed_by: p.needed_by.into(),
            without: p.without.into(),
            essential: p.essential,
        })
        .collect()
}

fn disk(node: &Node) -> Result<Vec<Row>, Failure> {
    let private = Path::new(&node.global.ve_private);
    let there = private.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let support = quota::project::support(there).map_err(|e| {
        Failure::because(Exit::System, format!("Unable to find out about disk quota on {}", there.display()), &e)
    })?;
    let (available, found) = match support {
        quota::project::Support::Available => (true, there.display().to_string()),
        quota::project::Support::Missing { reason } => (false, chain(&reason)),
    };
    let needed_by = "--diskspace, --diskinodes";
    let project = Row {
        feature: "project quota".into(),
        available,
        found,
        needed_by: needed_by.into(),
        without: "each private area is an image of its own".into(),
        essential: false,
    };
    let volatile = match quota::journal::volatile(there) {
        Ok(volatile) => volatile.map(|why| why.to_string()),
        Err(e) => Some(chain(&e)),
    };
    let kept = Row {
        feature: "power cut".into(),
        available: volatile.is_none(),
        found: volatile.unwrap_or_else(|| there.display().to_string()),
        needed_by: needed_by.into(),
        without: "after one, `e2fsck -f` has to go through all files before what is used is right again".into(),
        essential: false,
    };
    Ok(vec![project, kept])
}

fn cgroups(node: &Node) -> Result<Vec<Row>, Failure> {
    let found = vzrt::cgroup::Host::detect(Path::new("/"));
    let support = found.and_then(|host| Ok((host.support(&node.global.cgroup)?, host)));
    let (support, host) = match support {
        Ok(support) => support,
        Err(e) => {
            return Ok(vec![Row {
                feature: "cgroups".into(),
                available: false,
                found: chain(&e),
                needed_by: "every limit".into(),
                without: "no container starts".into(),
                essential: true,
            }]);
        }
    };
    let row = |fact: vzrt::cgroup::Fact| Row {
        feature: fact.feature,
        available: fact.available.is_ok(),
        found: fact.available.unwrap_or_else(|why| why),
        needed_by: fact.needed_by.into(),
        without: fact.without.into(),
        essential: false,
    };
    let mut rows: Vec<Row> = support.facts.into_iter().map(row).collect();
    rows.extend(io::rows(node, &host)?);
    Ok(rows)
}

fn network(node: &Node) -> Vec<Row> {
    vzrt::net::support(&decide::host_net(node))
        .into_iter()
        .map(|f| Row {
            feature: f.feature.into(),
            available: f.available,
            found: f.found,
            needed_by: f.needed_by.into(),
            without: f.without.into(),
            essential: false,
        })
        .collect()
}

fn programs() -> Vec<Row> {
    [
        ("mkfs.ext4", "e2fsprogs", "--diskspace without project quota", "no bounded private area can be made"),
        ("nft", "nftables", "--ipadd", "no container gets an address"),
        (
            "mmdebstrap",
            "mmdebstrap",
            "vzpkg create cache debian-*",
            "Debian templates can't be made here; archives from elsewhere work",
        ),
        ("busybox", "busybox-static", "vzpkg create cache busybox", "the busybox template can't be made"),
    ]
    .into_iter()
    .map(|(program, package, needed_by, without)| {
        let place = vzrt::hooks::PATH.split(':').map(|d| Path::new(d).join(program)).find(|p| p.exists());
        Row {
            feature: format!("program {program}"),
            available: place.is_some(),
            found: place.map_or_else(|| format!("Debian package {package}"), |p| p.display().to_string()),
            needed_by: needed_by.into(),
            without: without.into(),
            essential: false,
        }
    })
    .collect()
}
