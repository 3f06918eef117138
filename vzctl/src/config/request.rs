//! What `vzctl set` was asked for: the options of the table, read into changes in the order they were given.

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};

use super::params::{self, Live, Param};
use super::settings::{Change, Settings};
use super::values::{BadValue, Dns, Mask, Netif, SearchDomains};
use crate::Exit;

/// What happens where a parameter cannot be put into force on the running container (`--setmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// The container is restarted.
    Restart,
    /// Nothing is applied, nothing saved, and the command ends with 32.
    Ignore,
}

/// The request, checked as far as it can be without the container.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SetRequest {
    /// `--save`.
    pub save: bool,
    /// `--force`.
    pub force: bool,
    /// `--setmode`.
    pub setmode: Option<SetMode>,
    /// `--reset_ub`: apply the beancounters of the configuration again.
    pub reset_ub: bool,
    /// `--applyconfig`: take over everything of a sample configuration.
    pub applyconfig: Option<String>,
    /// `--applyconfig_map`: take over one group of it.
    pub applyconfig_map: Option<String>,
    /// `--skip_arpdetect`.
    pub skip_arpdetect: bool,
    /// `--offline-resize`.
    pub offline_resize: bool,
    /// What changes, in the order of the command line.
    pub changes: Vec<Change>,
    /// Options among them that a running container cannot take over, as `Unable to set X on a running container` names them.
    pub need_restart: Vec<&'static str>,
    /// Options among them that are refused while the container runs (exit code 32).
    pub need_stopped: Vec<&'static str>,
}

/// The command line of `set` or `create` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A value.
    #[error("Bad parameter for --{option}: {bad}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        bad: BadValue,
        /// The code `vzctl` ends with.
        exit: Exit,
    },
    /// `--reset_ub` came with others.
    #[error("Error: option --reset_ub is exclusive")]
    ResetUbNotAlone,
    /// An option that only makes sense when it is saved.
    #[error("Error: unable to use --{0} without --save")]
    NeedsSave(&'static str),
    /// As above, for names; the code differs.
    #[error("Error: unable to set name without --save")]
    NameNeedsSave,
    /// An option that needs another.
    #[error("Error: --{option} needs --{other}")]
    Needs {
        /// The option.
        option: &'static str,
        /// What it needs.
        other: &'static str,
    },
}

impl RequestError {
    /// The code `vzctl` ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Value { exit, .. } => *exit,
            Self::NameNeedsSave => Exit::SetName,
            Self::ResetUbNotAlone | Self::NeedsSave(_) | Self::Needs { .. } => Exit::InvalidSyntax,
        }
    }
}

/// The options that belong to the interface `--ifname` names.
const NETIF_FIELDS: [(&str, &str, &str); 6] = [
    ("ifname", "IFNAME", "The interface that the next five are about"),
    ("mac", "MAC", "Its hardware address"),
    ("host_ifname", "IFNAME", "The name of its other end, on the host"),
    ("host_mac", "MAC", "The hardware address of that"),
    ("bridge", "BRIDGE", "The bridge it is in"),
    ("mac_filter", "on|off", "Whether frames from other hardware addresses are dropped"),
];

const FLAGS: [(&str, &str); 5] = [
    ("save", "Keep the parameters in the configuration"),
    ("force", "Save although the configuration does not exist"),
    ("reset_ub", "Apply the beancounters of the configuration again"),
    ("skip_arpdetect", "Don't ask the network whether an address is taken"),
    ("offline-resize", "Resize the image while it is not mounted"),
];

/// The options of `vzctl set`.
pub fn set_args() -> Vec<Arg> {
    let mut args: Vec<Arg> =
        FLAGS.iter().map(|(name, help)| Arg::new(*name).long(*name).help(*help).action(ArgAction::SetTrue)).collect();
    for arg in &mut args {
        if arg.get_id() == "offline-resize" {
            *arg = arg.clone().alias("offline").alias("offline_resize");
        }
    }
    let modes = ["restart", "ignore"];
    args.push(
        Arg::new("setmode")
            .long("setmode")
            .value_parser(modes)
            .help("What to do where a running container cannot take it over"),
    );
    args.push(
        Arg::new("applyconfig").long("applyconfig").value_name("SAMPLE").help("Take over a sample configuration"),
    );
    args.push(
        Arg::new("applyconfig_map").long("applyconfig_map").value_name("GROUP").help("Take over one group of it: name"),
    );
    for (name, metavar, help) in NETIF_FIELDS {
        let heading = params::Group::Network.title();
        args.push(
            Arg::new(name).long(name).value_name(metavar).help(help).action(ArgAction::Append).help_heading(heading),
        );
    }
    args.extend(params::all().iter().filter(|p| p.at_set).filter_map(arg));
    args
}

/// The options of the table that `vzctl create` has; those of its own (`--config`, `--force`) are the command's.
pub fn create_args() -> Vec<Arg> {
    params::all().iter().filter(|p| p.at_create).filter_map(arg).collect()
}

fn arg(param: &Param) -> Option<Arg> {
    let option = param.option?;
    // getopt took the next word whatever it looks like, and empty ones: scripts pass values through.
    let mut arg = Arg::new(option)
        .long(option)
        .value_name(param.metavar)
        .help(param.help.clone())
        .help_heading(param.group.title());
    arg = arg.action(ArgAction::Append).allow_hyphen_values(true).visible_aliases(param.aliases.to_vec());
    Some(match param.short {
        Some(letter) => arg.short(letter),
        None => arg,
    })
}

/// Changes that the command line of `set` or `create` asks for, in its order.
///
/// # Errors
/// The first value that is bad.
pub fn changes(matches: &ArgMatches) -> Result<Vec<(&'static str, Change)>, RequestError> {
    let mut found = Vec::new();
    for param in params::all() {
        let Some(option) = param.option else { continue };
        for (at, value) in given(matches, option) {
            let exit = param.bad_value;
            let change = param.parse(value).map_err(|bad| RequestError::Value { option, bad, exit })?;
            found.push((at, option, change));
        }
    }
    found.extend(netif_edits(matches)?);
    found.sort_by_key(|(at, _, _)| *at);
    Ok(joined_lists(found.into_iter().map(|(_, option, change)| (option, change))))
}

/// Each value of an option with its place on the command line.
fn given<'a>(matches: &'a ArgMatches, option: &str) -> Vec<(usize, &'a str)> {
    // `create` has fewer options than the table.
    let Ok(Some(values)) = matches.try_get_many::<String>(option) else { return Vec::new() };
    let places = matches.indices_of(option).into_iter().flatten();
    places.zip(values.map(String::as_str)).collect()
}

/// `--ifname eth0 --mac … --ifname eth1 --bridge …`: each field belongs to the interface named last before it.
fn netif_edits(matches: &ArgMatches) -> Result<Vec<(usize, &'static str, Change)>, RequestError> {
    let mut fields: Vec<(usize, &'static str, &str)> = Vec::new();
    for (option, _, _) in NETIF_FIELDS {
        fields.extend(given(matches, option).into_iter().map(|(at, value)| (at, option, value)));
    }
    fields.sort_by_key(|(at, _, _)| *at);
    let mut edits: Vec<(usize, &'static str, Netif)> = Vec::new();
    for (at, option, value) in fields {
        let bad = |bad| RequestError::Value { option, bad, exit: Exit::InvalidValue };
        if option == "ifname" {
            let ifname = super::values::interface_name(value).map_err(bad)?;
            edits.push((at, "ifname", Netif { ifname, ..Netif::default() }));
            continue;
        }
        let Some((_, _, edit)) = edits.last_mut() else { return Err(RequestError::Needs { option, other: "ifname" }) };
        edit.set_field(option, value).map_err(bad)?;
    }
    Ok(edits.into_iter().map(|(at, option, edit)| (at, option, Change::EditNetif(edit))).collect())
}

/// `--nameserver A --nameserver B` means both.
fn joined_lists(changes: impl Iterator<Item = (&'static str, Change)>) -> Vec<(&'static str, Change)> {
    let mut joined: Vec<(&'static str, Change)> = Vec::new();
    for (option, change) in changes {
        let earlier = joined.iter_mut().find(|(o, _)| *o == option).map(|(_, earlier)| earlier);
        match (earlier, change) {
            (Some(Change::Nameserver(Dns::Servers(list))), Change::Nameserver(Dns::Servers(more))) => list.extend(more),
            (
                Some(Change::Searchdomain(SearchDomains::Names(list))),
                Change::Searchdomain(SearchDomains::Names(more)),
            ) => {
                list.extend(more);
            }
            (Some(Change::Iptables(list)), Change::Iptables(more)) => list.extend(more),
            (_, change) => joined.push((option, change)),
        }
    }
    joined
}

impl SetRequest {
    /// Reads what clap took apart with [`set_args`].
    ///
    /// # Errors
    /// A bad value, or options that do not go together.
    pub fn from_matches(matches: &ArgMatches) -> Result<Self, RequestError> {
        let flag = |name| matches.get_flag(name);
        let word = |name| matches.get_one::<String>(name).cloned();
        let changes = changes(matches)?;
        let such = |live: Live| {
            let is = |option: &&'static str| params::by_option(option).is_some_and(|p| p.live == live);
            let mut options: Vec<&'static str> = changes.iter().map(|(o, _)| *o).filter(is).collect();
            options.dedup();
            options
        };
        let request = Self {
            save: flag("save"),
            force: flag("force"),
            setmode: word("setmode").map(|mode| if mode == "restart" { SetMode::Restart } else { SetMode::Ignore }),
            reset_ub: flag("reset_ub"),
            applyconfig: word("applyconfig"),
            applyconfig_map: word("applyconfig_map"),
            skip_arpdetect: flag("skip_arpdetect"),
            offline_resize: flag("offline-resize"),
            need_restart: such(Live::Restart),
            need_stopped: such(Live::Stopped),
            changes: changes.into_iter().map(|(_, change)| change).collect(),
        };
        request.check(matches)?;
        Ok(request)
    }

    fn check(&self, matches: &ArgMatches) -> Result<(), RequestError> {
        if self.reset_ub && matches.ids().filter(|id| *id != "reset_ub").any(|id| is_option_given(matches, id.as_str()))
        {
            return Err(RequestError::ResetUbNotAlone);
        }
        if !self.save {
            let has = |is: fn(&Change) -> bool| self.changes.iter().any(is);
            if has(|c| matches!(c, Change::Name(_))) {
                return Err(RequestError::NameNeedsSave);
            }
            let needing = [
                ("ostemplate", has(|c| matches!(c, Change::OsTemplate(_)))),
                ("stop-timeout", has(|c| matches!(c, Change::StopTimeout(_)))),
                ("force", self.force),
                ("setmode restart", self.setmode == Some(SetMode::Restart)),
            ];
            if let Some((option, _)) = needing.into_iter().find(|(_, given)| *given) {
                return Err(RequestError::NeedsSave(option));
            }
        }
        if self.offline_resize && !self.changes.iter().any(|c| matches!(c, Change::DiskSpace(_))) {
            return Err(RequestError::Needs { option: "offline-resize", other: "diskspace" });
        }
        Ok(())
    }

    /// The rules between CPU and node masks, which what is configured already may satisfy.
    ///
    /// # Errors
    /// A node mask without a CPU mask, or `--cpumask auto` without a node mask.
    pub fn check_masks(&self, configured: &Settings) -> Result<(), RequestError> {
        let mut after = configured.clone();
        self.changes.iter().for_each(|change| after.apply(change));
        let sets_nodes = self.changes.iter().any(|c| matches!(c, Change::NodeMask(_)));
        let sets_auto = self.changes.iter().any(|c| matches!(c, Change::CpuMask(Mask::Auto)));
        if sets_nodes && after.cpumask.is_none() {
            return Err(RequestError::Needs { option: "nodemask", other: "cpumask" });
        }
        if sets_auto && after.nodemask.is_none() {
            return Err(RequestError::Needs { option: "cpumask auto", other: "nodemask" });
        }
        Ok(())
    }

    /// Whether nothing at all was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.reset_ub && self.applyconfig.is_none() && self.applyconfig_map.is_none()
    }
}

/// The container's own argument and flags before the command are no options of `set`.
fn is_option_given(matches: &ArgMatches, id: &str) -> bool {
    let ours = params::by_option(id).is_some()
        || FLAGS.iter().any(|(name, _)| *name == id)
        || NETIF_FIELDS.iter().any(|(name, _, _)| *name == id)
        || ["setmode", "applyconfig", "applyconfig_map"].contains(&id);
    ours && matches.value_source(id) == Some(ValueSource::CommandLine)
}

#[cfg(test)]
mod tests;
