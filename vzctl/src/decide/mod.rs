//! From a configuration and what this host is to a plan. Nothing here changes anything: the plan is a value that `start --dry-run` prints.

mod guarantee;
mod masks;
mod program;
mod resources;
mod root;
mod spec;

use std::net::IpAddr;

use vzrt::cgroup;
use vzrt::guest;
use vzrt::net::{HostNet, NeighbourDevs, NetPlan};
use vzrt::plan::{Extras, GuestPlan, Hooks, IdRange};
use vzrt::{Ctid, Plan};

pub use guarantee::fits;
pub use masks::{gone, refuse_absent};
pub use resources::{
    bounds, cpu_share, cpulimit_percent, disks, only_rates, oom_score_adj, resources, shutdown_share, without_rates,
};
pub use root::{
    image_file, image_of, is_bounded_by_image, is_bounded_by_project, is_ploop, is_preallocated, other_limits,
    own_area, own_project, ploop_image, root, trees, wants_quota,
};

pub use program::refuse_without_init;
pub use spec::rlimits;

use crate::config::Node;
use crate::config::dist::{self, Dist, HostnameStyle};
use crate::config::global::NeighbourDevices;
use crate::config::hooks::{Moment, places, scripts};
use crate::config::idrange::{self, Bases, RangeError, WIDTH};
use crate::config::values::{Dns, SearchDomains};
use crate::subject::Subject;
use crate::{Exit, Failure};

/// Where init is looked for, in vzctl 4's order.
const INIT: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];

/// The plan of a container as it is configured now.
///
/// # Errors
/// The configuration asks for something no plan can be made of.
pub fn plan(node: &Node, container: &Subject) -> Result<Plan, Failure> {
    let ctid = container.ctid;
    let ids = ids(container)?;
    let mut spec = spec::spec(node, container, ids)?;
    let program = program::of(node, container)?;
    if let Some(program) = &program {
        program.put_into(&mut spec)?;
    }
    let dev_nodes = spec::BASE_NODES.iter().map(|n| (*n).to_owned());
    let granted = container.settings.devnodes.iter().filter(|d| !d.access.is_none()).map(|d| d.name.clone());
    let vz = Extras {
        run_dir: node.run_dir(ctid),
        lock_file: node.lock_file(ctid),
        cgroup: node.global.cgroup.clone(),
        ids,
        bounds: bounds(&container.settings)?,
        enforce_bounds: node.global.enforce_bounds,
        cpu: cpu_share(&container.settings, &node.global),
        root: root(node, container, ids)?,
        net: net_plan(node, container)?,
        hooks: hooks(node, ctid)?,
        guest: guest_plan(node, container)?,
        dev_nodes: dev_nodes.collect(),
        granted_nodes: granted.collect(),
        init: program.as_ref().map_or_else(|| INIT.map(str::to_owned).to_vec(), program::Program::paths),
        stop_signal: program.as_ref().map(program::Program::stop_signal),
        filter: None,
        log_file: node.global.log_file.clone(),
        restart_argv: restart_argv(node, ctid)?,
        quick_reboots: 0,
    };
    Ok(Plan { ctid, spec, vz })
}

/// What a container needs before it is mounted, and did not get when it was made (on an OpenVZ host, or it was copied here): an id range,
/// and a project id.
///
/// # Errors
/// Either can't be had.
pub fn prepare(node: &Node, container: Subject) -> Result<Subject, Failure> {
    let container = ensure_ids(node, container)?;
    own_project(node, &container)?;
    Ok(container)
}

/// Gives a container without an id range one of its own, and saves it: a configuration from an OpenVZ host has none.
///
/// One that is not the container's alone (its file is a copy of another's, or somebody wrote 0) is replaced: it would be no wall. That costs
/// nothing, for on disk the container's files have the numbers they have inside.
///
/// # Errors
/// No range is free, or the configuration can't be saved.
fn ensure_ids(node: &Node, container: Subject) -> Result<Subject, Failure> {
    if let Some(bases) = container.bases() {
        match idrange::adopt(node, container.ctid, bases) {
            Ok(_) => return Ok(container),
            Err(e @ RangeError::Overlap { .. }) => tracing::warn!("Warning: {e}: the container is given others"),
            Err(e) => return Err(Failure::from_error(e.exit(), &e)),
        }
    }
    let allocation = idrange::allocate(node).map_err(|e| Failure::from_error(e.exit(), &e))?;
    // Saved before the range is let go of, or the next container might get it too.
    let container = container.with_ids(node, allocation.bases).map_err(|e| Failure::from_error(e.exit(), &e))?;
    container.own.save(node).map_err(|e| Failure::from_error(e.exit(), &e))?;
    Ok(container)
}

/// The same for a plan that is only looked at: the range it would get now, which nobody is given.
///
/// # Errors
/// No range is free.
pub fn with_prospective_ids(node: &Node, container: Subject) -> Result<Subject, Failure> {
    if container.bases().is_some_and(|bases| idrange::adopt(node, container.ctid, bases).is_ok()) {
        return Ok(container);
    }
    let allocation = idrange::allocate(node).map_err(|e| Failure::from_error(e.exit(), &e))?;
    container.with_ids(node, allocation.bases).map_err(|e| Failure::from_error(e.exit(), &e))
}

/// The range of ids of a container.
///
/// # Errors
/// It has none.
pub fn ids(container: &Subject) -> Result<IdRange, Failure> {
    match container.bases() {
        Some(Bases { uid, gid }) => Ok(IdRange { uid, gid, count: WIDTH }),
        None => Err(Failure::new(Exit::InvalidConfig, "The container has no range of user ids (LOCAL_UID, LOCAL_GID)")),
    }
}

/// The host's part of the network of its containers.
#[must_use]
pub fn host_net(node: &Node) -> HostNet {
    HostNet {
        prefix: node.global.interface_prefix.clone(),
        table: node.global.interface_prefix.clone(),
        masquerade: node.global.masquerade,
        ipv6: node.global.ipv6,
        ..HostNet::default()
    }
}

/// The container's network.
///
/// # Errors
/// An address that no container can have.
pub fn net_plan(node: &Node, container: &Subject) -> Result<NetPlan, Failure> {
    let host = host_net(node);
    let own = vzrt::net::host_addresses()
        .map_err(|e| Failure::because(Exit::AddAddress, "Unable to list the addresses of this host", &e))?;
    for address in &container.settings.addresses {
        vzrt::net::check_address(*address, &own)
            .map_err(|e| Failure::because(Exit::BadAddress, format!("Invalid IP address {address}"), &e))?;
    }
    let wanted = container.settings.addresses.iter().filter(|a| node.global.ipv6 || a.ip.is_ipv4()).copied().collect();
    let global = &node.global;
    Ok(NetPlan {
        route_source_dev: global.route_source_device.clone(),
        neighbour_devs: match &global.neighbour_devices {
            NeighbourDevices::All => NeighbourDevs::All,
            NeighbourDevices::Detect => NeighbourDevs::Detect,
            NeighbourDevices::List(list) => NeighbourDevs::List(list.clone()),
        },
        arp_detect: !global.skip_arpdetect,
        error_on_arpfail: global.error_on_arpfail,
        ..NetPlan::new(&host, container.ctid, wanted)
    })
}

fn hooks(node: &Node, ctid: Ctid) -> Result<Hooks, Failure> {
    let at = |moment| scripts(node, ctid, moment).map_err(|e| Failure::from_error(e.exit(), &e));
    // As in vzctl 4, those that run on the way down are the ones that are there then, not the ones that are there now.
    let later = |moment| places(node, ctid, moment);
    Ok(Hooks {
        premount: at(Moment::PreMount)?,
        mount: at(Moment::Mount)?,
        start: at(Moment::Start)?.into_iter().next(),
        stop: later(Moment::Stop).into_iter().next(),
        umount: later(Moment::Umount),
        postumount: later(Moment::PostUmount),
        env: hook_env(node, ctid),
    })
}

/// What action scripts are told in their environment.
#[must_use]
pub fn hook_env(node: &Node, ctid: Ctid) -> Vec<(String, String)> {
    let conf = node.container_conf(ctid).display().to_string();
    vec![("VEID".into(), ctid.to_string()), ("VE_CONFFILE".into(), conf)]
}

/// The container's dist configuration, and what to warn of about it.
///
/// # Errors
/// There is none, not even a default.
pub fn dist_of(node: &Node, container: &Subject) -> Result<Dist, Failure> {
    let ostemplate = container.settings.ostemplate.as_deref();
    let store = templates::Store::open(&node.global.template_dir);
    let name = ostemplate.and_then(|name| name.parse::<templates::TemplateName>().ok());
    // What is wrong with a recipe is for who makes a template from it; a template without one is the ordinary case.
    let recipe = name.and_then(|name| templates::Recipe::load(&name, &store.recipes_dir()).ok());
    let recipe = recipe.as_ref().map(|recipe| recipe.distribution.as_str());
    let choice = dist::choose(&node.dists_dir(), recipe, ostemplate, || tree_names(node, container), |p| p.exists());
    if let Some(warning) = choice.warning {
        tracing::debug!("Warning: {warning}");
    }
    Dist::load(&choice.path).map_err(|e| Failure::from_error(e.exit(), &e))
}

/// What the tree of a container calls itself, where it lies in a directory. It may be whatever the container has made of it: what can't be read says nothing.
fn tree_names(node: &Node, container: &Subject) -> Vec<String> {
    let layers = match &container.settings.tree {
        _ if is_ploop(container) => Vec::new(),
        // That one is not there is said by who needs it.
        Some(tree) => trees(node, tree, &container.settings.layers).unwrap_or_default(),
        None => vec![container.ve_private.clone()],
    };
    let names = layers.iter().map(|layer| {
        guest::Root::open(layer).and_then(|root| guest::distributions(&root)).unwrap_or_else(|e| {
            tracing::debug!("{}: its distribution is not known: {}", layer.display(), crate::failure::chain(&e));
            Vec::new()
        })
    });
    // The uppermost layer that says anything.
    names.into_iter().find(|names| !names.is_empty()).unwrap_or_default()
}

fn guest_plan(node: &Node, container: &Subject) -> Result<GuestPlan, Failure> {
    let settings = &container.settings;
    let hostname = settings.hostname.as_deref().map(str::parse).transpose();
    let hostname = hostname.map_err(|e: guest::BadHostname| Failure::from_error(Exit::Hostname, &e))?;
    let (nameservers, search) = dns(container)?;
    let dist = dist_of(node, container)?;
    Ok(GuestPlan {
        hostname,
        hostname_style: style(dist.hostname),
        nameservers,
        search,
        addresses: dist.address,
        console: dist.console,
    })
}

/// Name servers and search domains of a container: its own, or the node's default, with `inherit` looked up on the host.
///
/// # Errors
/// The host's own can't be read.
pub fn dns(container: &Subject) -> Result<(Vec<IpAddr>, Vec<guest::Hostname>), Failure> {
    let settings = &container.settings;
    let servers = settings.nameserver.as_ref();
    let search = settings.searchdomain.as_ref();
    let inherits = matches!(servers, Some(Dns::Inherit)) || matches!(search, Some(SearchDomains::Inherit));
    let host = if inherits {
        guest::host_resolv()
            .map_err(|e| Failure::because(Exit::Nameserver, "Unable to read the name servers of this host", &e))?
    } else {
        guest::HostResolv::default()
    };
    Ok((
        match servers {
            Some(Dns::Inherit) => host.nameservers,
            Some(Dns::Servers(list)) => list.clone(),
            None => Vec::new(),
        },
        match search {
            Some(SearchDomains::Inherit) => host.search,
            // A lone dot is the root domain: search nothing.
            Some(SearchDomains::Names(list)) => list
                .iter()
                .filter(|n| *n != ".")
                .map(|n| n.parse().map_err(|e: guest::BadHostname| Failure::from_error(Exit::Searchdomain, &e)))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
    ))
}

/// The runtime's word for where a distribution keeps its host name.
#[must_use]
pub fn style(style: HostnameStyle) -> guest::HostnameStyle {
    match style {
        HostnameStyle::EtcHostname => guest::HostnameStyle::EtcHostname,
        HostnameStyle::EtcHostnameUpper => guest::HostnameStyle::EtcHostnameUpper,
        HostnameStyle::SysconfigNetwork => guest::HostnameStyle::SysconfigNetwork,
        HostnameStyle::ConfdHostname => guest::HostnameStyle::ConfdHostname,
        HostnameStyle::RcConf => guest::HostnameStyle::RcConf,
        HostnameStyle::Auto => guest::HostnameStyle::Auto,
    }
}

/// The command line that starts this container again, for its monitor: this very program, whatever it is called.
fn restart_argv(node: &Node, ctid: Ctid) -> Result<Vec<String>, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::from_error(Exit::System, &e))?;
    let args = [
        program.display().to_string().trim_end_matches(" (deleted)").to_owned(),
        "--quiet".into(),
        "--config-dir".into(),
        node.config_dir().display().to_string(),
        "--wait-lock".into(),
        "60".into(),
        "start".into(),
        ctid.to_string(),
    ];
    Ok(args.to_vec())
}

/// A plan for a person to read.
#[must_use]
pub fn describe(plan: &Plan) -> String {
    let root = &plan.vz.root;
    let mut lines = vec![
        format!("container {}", plan.ctid),
        format!("  root       {} ({})", root.mountpoint.display(), root::describe(root)),
        format!("  ids        0..{} are {} and up on the host", plan.vz.ids.count, plan.vz.ids.uid),
        format!("  cgroup     {}/{}", plan.vz.cgroup, plan.ctid),
    ];
    let addresses: Vec<String> = plan.vz.net.addresses.iter().map(ToString::to_string).collect();
    lines.push(format!(
        "  network    {} -> venet0: {}",
        plan.vz.net.host_ifname,
        if addresses.is_empty() { "no address".into() } else { addresses.join(" ") }
    ));
    lines.push(format!("  devices    {}", [&plan.vz.dev_nodes[..], &plan.vz.granted_nodes[..]].concat().join(" ")));
    lines.push(format!("  init       {}", plan.vz.init.join(" or ")));
    lines.push("All of it: vzctl start --dry-run --json".into());
    lines.join("\n")
}

/// The cgroup of a container, for who only wants to read it.
#[must_use]
pub fn cgroup_of(node: &Node, host: &cgroup::Host, ctid: Ctid) -> cgroup::CtCgroup {
    host.container(&node.global.cgroup, ctid)
}
