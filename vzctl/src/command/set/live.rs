//! Changes of a running container.

use std::path::Path;

use oci_spec::runtime::{LinuxResources, PosixRlimit, PosixRlimitType};
use serde_json::Value;
use vzrt::cgroup::CtCgroup;
use vzrt::guest::{self, Hostname};
use vzrt::{Inside, Plan, Running, Trouble};

use super::{Context, disk, edit_failure};
use crate::config::request::SetRequest;
use crate::config::settings::Change;
use crate::failure::chain;
use crate::subject::Subject;
use crate::{Exit, Failure, decide};

/// A running container and what is to become of it.
pub(super) struct Live<'a> {
    pub(super) context: &'a Context,
    pub(super) request: &'a SetRequest,
    pub(super) before: &'a Subject,
    pub(super) after: &'a Subject,
    pub(super) running: &'a Running,
    pub(super) plan: Plan,
    pub(super) host: &'a vzrt::cgroup::Host,
}

/// A password to set, hashed already: what is plain does not go inside.
pub(super) struct PasswordEdit {
    user: guest::UserName,
    hash: guest::SecretHash,
}

impl Live<'_> {
    /// Applies everything that a running container takes, and keeps the plan that later commands read in step.
    pub(super) fn apply(mut self) -> Result<(), Failure> {
        self.limits()?;
        self.weigh()?;
        self.tell_cpu();
        self.devices()?;
        self.addresses()?;
        self.disk()?;
        self.names()?;
        let inside = self.inside();
        password_edits(self.request)?.iter().try_for_each(|edit| set_password(&inside, edit))?;
        self.context.run_dir().write_plan(&self.plan).map_err(|e| super::super::system(&e))
    }

    fn cgroup(&self) -> CtCgroup {
        decide::cgroup_of(&self.context.node, self.host, self.context.ctid)
    }

    fn inside(&self) -> Inside<'_> {
        Inside::new(self.running, &self.plan, self.host)
    }

    /// Everything that is a limit of the cgroup: only what differs is written, except for `--reset_ub`.
    fn limits(&mut self) -> Result<(), Failure> {
        let private = &self.after.ve_private;
        self.plan.vz.bounds = decide::bounds(&self.after.settings)?;
        vzrt::counters::rebound(&self.cgroup(), &self.plan.vz.bounds)
            .map_err(|e| Failure::because(Exit::SetBeancounters, "Unable to set the bounds in the kernel", &e))?;
        self.oom_score()?;
        self.rlimits()?;
        let mut wanted = decide::resources(&self.after.settings, private)?;
        let before = decide::resources(&self.before.settings, private)?;
        if wanted == before && !self.request.reset_ub {
            return Ok(());
        }
        if let Some(now) = self.plan.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
            && !self.request.reset_ub
        {
            wanted = changed(now, &before, &wanted).map_err(|e| super::super::system(&e))?;
        }
        let missing = self
            .cgroup()
            .apply(&wanted)
            .map_err(|e| Failure::because(Exit::SetBeancounters, "Unable to set the limits of the container", &e))?;
        if wanted.block_io() != before.block_io() {
            super::super::io::set_up(&self.context.node, self.after, self.host)?;
        }
        for unsupported in missing {
            tracing::warn!("Warning: {unsupported}");
        }
        if self.request.reset_ub || self.before.settings.bounds != self.after.settings.bounds {
            tracing::info!("UB limits were set successfully");
        }
        if let Some(linux) = self.plan.spec.linux_mut() {
            linux.set_resources(Some(wanted));
        }
        Ok(())
    }

    /// Its part of busy processors.
    fn weigh(&mut self) -> Result<(), Failure> {
        let wanted = decide::cpu_share(&self.after.settings, &self.context.node.global);
        if wanted == self.plan.vz.cpu && !self.request.reset_ub {
            return Ok(());
        }
        let missing = self
            .cgroup()
            .weigh(wanted)
            .map_err(|e| Failure::because(Exit::SetCpu, "Unable to set the CPU units of the container", &e))?;
        if let Some(unsupported) = missing {
            tracing::warn!("Warning: {unsupported}");
        }
        self.plan.vz.cpu = wanted;
        Ok(())
    }

    /// Who is spared when the host is out of memory; on a host whose root may not decide that, nobody is.
    fn oom_score(&mut self) -> Result<(), Failure> {
        let wanted = decide::oom_score_adj(&self.after.settings, vzrt::overdraft::host_bytes())?;
        let now = self.plan.spec.process().as_ref().and_then(|process| process.oom_score_adj()).unwrap_or(0);
        if wanted == now {
            return Ok(());
        }
        if let Err(e) = self.cgroup().readjust_oom_score(self.running.state.init_pid, wanted) {
            tracing::warn!("Warning: oomguarpages does not spare running processes: {}", chain(&e));
        }
        if let Some(process) = self.plan.spec.process_mut() {
            process.set_oom_score_adj(Some(wanted));
        }
        Ok(())
    }

    /// lockedpages at once; numsiginfo is a limit of the user namespace, which takes it when it is made.
    fn rlimits(&mut self) -> Result<(), Failure> {
        let (wanted, before) = (decide::rlimits(&self.after.settings)?, decide::rlimits(&self.before.settings)?);
        if wanted == before {
            return Ok(());
        }
        let hard =
            |limits: &[PosixRlimit], kind| limits.iter().find(|limit| limit.typ() == kind).map(PosixRlimit::hard);
        let locked = hard(&wanted, PosixRlimitType::RlimitMemlock);
        if locked != hard(&before, PosixRlimitType::RlimitMemlock)
            && let Err(e) = self.cgroup().limit_locked_memory(locked.filter(|bytes| *bytes != u64::MAX))
        {
            tracing::warn!("Warning: lockedpages does not hold for what runs already: {}", chain(&e));
        }
        if hard(&wanted, PosixRlimitType::RlimitSigpending) != hard(&before, PosixRlimitType::RlimitSigpending) {
            tracing::warn!("Warning: numsiginfo of a running container changes when it is started the next time");
        }
        if let Some(process) = self.plan.spec.process_mut() {
            process.set_rlimits(Some(wanted));
        }
        Ok(())
    }

    /// Nodes of newly granted devices. Those taken away stay in `/dev`, where the device filter refuses them.
    fn devices(&mut self) -> Result<(), Failure> {
        let granted = self.after.settings.devnodes.iter().filter(|d| !d.access.is_none()).map(|d| d.name.clone());
        let new: Vec<String> = granted.filter(|name| !self.plan.vz.granted_nodes.contains(name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.inside()
            .grant_devices(&new)
            .map_err(|e| edit_failure(Exit::SetDevices, "Unable to grant the devices", &e))?;
        self.plan.vz.granted_nodes.extend(new);
        Ok(())
    }

    fn tell_cpu(&self) {
        let (before, after) = (&self.before.settings, &self.after.settings);
        if let Some(limit) = after.cpulimit.filter(|_| before.cpulimit != after.cpulimit) {
            tracing::info!("Setting CPU limit: {limit}");
        }
        if let Some(units) = after.cpuunits.filter(|_| before.cpuunits != after.cpuunits) {
            tracing::info!("Setting CPU units: {units}");
        }
        if let Some(cpus) = after.cpus.filter(|_| before.cpus != after.cpus) {
            tracing::info!("Setting CPUs: {cpus}");
        }
    }

    fn addresses(&mut self) -> Result<(), Failure> {
        let is_address = |c: &&Change| matches!(c, Change::AddAddresses(_) | Change::RemoveAddresses(_));
        let asked: Vec<&Change> = self.request.changes.iter().filter(is_address).collect();
        if asked.is_empty() {
            return Ok(());
        }
        // What counts is what the container has now, not what its file says: an address that was not saved stays until the next start.
        let now = &self.plan.vz.net.addresses;
        let mut after = self.after.clone();
        after.settings.addresses.clone_from(now);
        asked.into_iter().for_each(|change| after.settings.apply(change));
        let mut wanted = decide::net_plan(&self.context.node, &after)?;
        wanted.arp_detect &= !self.request.skip_arpdetect;
        let gone: Vec<_> = now.iter().filter(|a| !wanted.addresses.contains(a)).copied().collect();
        let new: Vec<_> = wanted.addresses.iter().filter(|a| !now.contains(a)).copied().collect();
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        let path = format!("/proc/{}/ns/net", self.running.state.init_pid);
        let fail = |e: &(dyn std::error::Error + 'static)| {
            Failure::because(Exit::AddAddress, "Unable to change the addresses", e)
        };
        let netns = std::fs::File::open(&path).map_err(|e| fail(&e))?;
        let netns = std::os::fd::AsFd::as_fd(&netns);
        let list = |a: &[vzrt::net::Address]| a.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        if !gone.is_empty() {
            tracing::info!("Deleting IP address(es): {}", list(&gone));
            vzrt::net::remove(netns, &wanted, &gone).map_err(|e| fail(&e))?;
        }
        if !new.is_empty() {
            vzrt::net::ensure_host(&decide::host_net(&self.context.node)).map_err(|e| fail(&e))?;
            tracing::info!("Adding IP address(es): {}", list(&new));
            vzrt::net::add(netns, &wanted, &new).map_err(|e| match e.reason() {
                vzrt::net::NetError::AddressInUse { .. } => {
                    Failure::because(Exit::AddressInUse, "Unable to add the address", &e)
                }
                _ => fail(&e),
            })?;
        }
        self.plan.vz.net = wanted;
        self.tell_managers()
    }

    /// What the container's network managers read of its addresses. They have them already: files that can't be written are told of, and no failure.
    fn tell_managers(&self) -> Result<(), Failure> {
        let style = decide::dist_of(&self.context.node, self.after)?.address;
        let addresses = &self.plan.vz.net.addresses;
        let told = self.inside().change_files(|| in_root(|root| guest::set_network(root, style, addresses)));
        if let Err(e) = told {
            tracing::warn!("Warning: the files of the container do not tell of its addresses: {}", chain(&e));
        }
        Ok(())
    }

    fn disk(&mut self) -> Result<(), Failure> {
        if self.before.settings.disk_limits() == self.after.settings.disk_limits() {
            return Ok(());
        }
        disk::resize(&self.context.node, self.before, self.after, self.request)
    }

    /// Host name and name servers: in the kernel, and in the container's files.
    fn names(&mut self) -> Result<(), Failure> {
        let changed = |is: fn(&Change) -> bool| self.request.changes.iter().any(is);
        let hostname = changed(|c| matches!(c, Change::Hostname(Some(_))));
        let dns = changed(|c| matches!(c, Change::Nameserver(_) | Change::Searchdomain(_)));
        if hostname {
            let style = decide::style(decide::dist_of(&self.context.node, self.after)?.hostname);
            let name: Hostname = self
                .after
                .settings
                .hostname
                .as_deref()
                .unwrap_or_default()
                .parse()
                .map_err(|e| Failure::from_error(Exit::Hostname, &e))?;
            tracing::info!("Set hostname: {name}");
            self.inside()
                .change_files(|| {
                    nix::unistd::sethostname(name.as_str()).map_err(|e| Trouble::Call(format!("sethostname: {e}")))?;
                    in_root(|root| guest::set_hostname(root, style, &name))
                })
                .map_err(|e| edit_failure(Exit::Hostname, "Unable to set the host name", &e))?;
            self.plan.vz.guest.hostname = Some(name);
        }
        if dns {
            let (servers, search) = decide::dns(self.after)?;
            self.inside()
                .change_files(|| in_root(|root| guest::set_dns(root, &servers, &search)))
                .map_err(|e| edit_failure(Exit::Nameserver, "Unable to set the name servers", &e))?;
            tracing::info!("File resolv.conf was modified");
            (self.plan.vz.guest.nameservers, self.plan.vz.guest.search) = (servers, search);
        }
        Ok(())
    }
}

/// What is in force with what this command changes: a limit that was set without being saved stays until the next start.
fn changed(
    now: &LinuxResources,
    before: &LinuxResources,
    after: &LinuxResources,
) -> serde_json::Result<LinuxResources> {
    let mut now = serde_json::to_value(now)?;
    change(&mut now, &serde_json::to_value(before)?, &serde_json::to_value(after)?);
    serde_json::from_value(now)
}

fn change(now: &mut Value, before: &Value, after: &Value) {
    let (Value::Object(was), Value::Object(will)) = (before, after) else {
        if before != after {
            now.clone_from(after);
        }
        return;
    };
    let Value::Object(now) = now else {
        now.clone_from(after);
        return;
    };
    now.retain(|key, _| will.contains_key(key) || !was.contains_key(key));
    for (key, will) in will {
        match now.get_mut(key) {
            Some(now) => change(now, was.get(key).unwrap_or(&Value::Null), will),
            None if was.get(key) == Some(will) => {}
            None => drop(now.insert(key.clone(), will.clone())),
        }
    }
}

fn in_root(edit: impl Fn(&guest::Root) -> Result<(), guest::Error>) -> Result<(), Trouble> {
    guest::Root::open(Path::new("/")).and_then(|root| edit(&root)).map_err(|e| Trouble::Call(chain(&e)))
}

/// The passwords of the request, hashed on the host.
pub(super) fn password_edits(request: &SetRequest) -> Result<Vec<PasswordEdit>, Failure> {
    let bad =
        |e: &(dyn std::error::Error + 'static)| Failure::because(Exit::ChangePassword, "Unable to set the password", e);
    request
        .changes
        .iter()
        .filter_map(|c| match c {
            Change::UserPassword { user, password } => Some((user, password)),
            _ => None,
        })
        .map(|(user, password)| {
            let hash = match guest::SecretHash::from_crypted(password.reveal()) {
                // V7 scripts hand in hashes; a plain password never looks like one.
                Ok(hash) if password.reveal().starts_with('$') => hash,
                _ => guest::hash_password(&guest::Password::new(password.reveal()).map_err(|e| bad(&e))?)
                    .map_err(|e| bad(&e))?,
            };
            Ok(PasswordEdit { user: user.parse().map_err(|e: guest::BadUserName| bad(&e))?, hash })
        })
        .collect()
}

/// Sets one password inside.
pub(super) fn set_password(inside: &Inside, edit: &PasswordEdit) -> Result<(), Failure> {
    inside
        .change_files(|| in_root(|root| guest::set_password(root, &edit.user, &edit.hash)))
        .map_err(|e| edit_failure(Exit::ChangePassword, "Password change failed", &e))?;
    tracing::info!("Changing password for {}", edit.user);
    Ok(())
}
