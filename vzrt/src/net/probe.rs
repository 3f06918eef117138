//! Asking the neighbours whether one of them has an address already: what `arpsend -D` of OpenVZ did.
//!
//! The kernel asks: an entry of its neighbour table made with `NTF_USE` is resolved at once, by ARP or NDP alike. So there is no packet socket (closing one
//! waits for all processors), nothing to parse, and no second opinion on which source address to ask from.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::RouteNetlinkMessage as Rtnl;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::error::{Holder, NetError};
use super::message;
use super::neighbours;
use super::netlink::{Group, Netlink, Request, tolerate};
use super::plan::NetPlan;

/// How long after [`Probe::send`] an answer is waited for. A machine on the same network answers from its kernel, within a millisecond; OpenVZ
/// waited a second per address and interface. Send before the container is cloned and wait just before its network is made, and the wait is over
/// by then.
pub const PROBE_WAIT: Duration = Duration::from_millis(5);

/// A question that is out on the network.
pub struct Probe {
    /// `None` if nobody is to be asked.
    asked: Option<Asked>,
    error_on_arpfail: bool,
}

struct Asked {
    host: Netlink,
    /// Hears of every change of the host's neighbour table.
    changes: Netlink,
    questions: Vec<Question>,
    sent: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    device: u32,
    name: String,
    ip: IpAddr,
}

impl Probe {
    /// Asks for each address on each interface that is to answer for it, and doesn't wait. Asks nobody without `arp_detect` or such interfaces.
    ///
    /// # Errors
    /// [`NetError::AddressInUse`] if this host has one of them; [`NetError::DetectionFailed`] if asking failed and the plan says that is an error, or
    /// else a warning is all that becomes of it.
    pub fn send(plan: &NetPlan, ips: &[IpAddr]) -> Result<Self, NetError> {
        let error_on_arpfail = plan.error_on_arpfail;
        if !plan.arp_detect {
            return Ok(Self { asked: None, error_on_arpfail });
        }
        let asked = ask(plan, ips).or_else(|error| judge(error, error_on_arpfail, ips).map(|()| None))?;
        Ok(Self { asked, error_on_arpfail })
    }

    /// Waits for an answer until `wait` after the question: [`PROBE_WAIT`], unless there is a reason.
    ///
    /// # Errors
    /// [`NetError::AddressInUse`] with the neighbour that answered; otherwise as [`Probe::send`].
    pub fn finish(self, wait: Duration) -> Result<(), NetError> {
        let Some(mut asked) = self.asked else { return Ok(()) };
        let ips: Vec<IpAddr> = asked.questions.iter().map(|q| q.ip).collect();
        let heard = asked.listen(asked.sent + wait);
        let forgotten = forget(&mut asked.host, &asked.questions);
        heard.and(forgotten).or_else(|error| judge(error, self.error_on_arpfail, &ips))
    }
}

/// Not being able to ask is a warning, or an error if the configuration says so; an answer always is one.
fn judge(error: NetError, error_on_arpfail: bool, ips: &[IpAddr]) -> Result<(), NetError> {
    if matches!(error, NetError::AddressInUse { .. }) {
        return Err(error);
    }
    let failed = NetError::DetectionFailed { addresses: ips.to_vec(), source: Box::new(error) };
    if error_on_arpfail {
        return Err(failed);
    }
    let source = std::error::Error::source(&failed).map(ToString::to_string).unwrap_or_default();
    tracing::warn!("{failed}: {source}");
    Ok(())
}

fn ask(plan: &NetPlan, ips: &[IpAddr]) -> Result<Option<Asked>, NetError> {
    let mut host = Netlink::open()?;
    let sites = neighbours::survey(&mut host, plan, ips)?;
    let questions: Vec<Question> = sites
        .iter()
        .filter(|site| !site.ours)
        .flat_map(|site| {
            site.neighbours.iter().map(|d| Question { device: d.index, name: d.name.clone(), ip: site.ip })
        })
        .collect();
    if questions.is_empty() {
        return Ok(None);
    }
    let changes = Netlink::open_for(Group::Neighbours)?;
    // What the kernel remembers of the address would be believed without asking.
    forget(&mut host, &questions)?;
    host.all(questions.iter().map(question).collect())?;
    Ok(Some(Asked { host, changes, questions, sent: Instant::now() }))
}

fn question(question: &Question) -> Request {
    let Question { device, name, ip } = question;
    let mut message = message::neighbour(*device, *ip);
    message.header.flags = NeighbourFlags::Use;
    let text = format!("neigh add {ip} dev {name} use");
    Request { message: Rtnl::NewNeighbour(message), flags: NLM_F_CREATE, text }
}

fn forget(host: &mut Netlink, questions: &[Question]) -> Result<(), NetError> {
    let requests = questions.iter().map(|Question { device, name, ip }| {
        Request::new(Rtnl::DelNeighbour(message::neighbour(*device, *ip)), format!("neigh del {ip} dev {name}"))
    });
    let answers = host.each(requests.collect())?;
    answers.into_iter().try_for_each(|answer| tolerate(answer, &[Errno::ENOENT, Errno::ENODEV]))
}

impl Asked {
    fn listen(&self, until: Instant) -> Result<(), NetError> {
        while let Some(changes) = self.changes.changes(until)? {
            for change in changes {
                let Rtnl::NewNeighbour(entry) = change else { continue };
                if let Some((question, mac)) = self.questions.iter().find_map(|q| Some((q, answer_to(q, &entry)?))) {
                    let holder = Holder::Neighbour { device: question.name.clone(), mac };
                    return Err(NetError::AddressInUse { address: question.ip, holder });
                }
            }
        }
        Ok(())
    }
}

/// The hardware address of whoever answered, if this change of the table says that someone did.
fn answer_to(question: &Question, entry: &NeighbourMessage) -> Option<Vec<u8>> {
    let answered =
        matches!(entry.header.state, NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay);
    let asked = entry.attributes.contains(&NeighbourAttribute::Destination(NeighbourAddress::from(question.ip)));
    if !answered || !asked || entry.header.ifindex != question.device {
        return None;
    }
    entry
        .attributes
        .iter()
        .find_map(|a| if let NeighbourAttribute::LinkLayerAddress(mac) = a { Some(mac.clone()) } else { None })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

    use super::*;

    #[test]
    fn only_a_resolved_entry_for_the_question_is_an_answer() {
        let question = Question { device: 2, name: "eth0".into(), ip: "192.0.2.5".parse().unwrap() };
        let mut entry = message::neighbour(2, question.ip);
        entry.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![1, 2, 3, 4, 5, 6]));
        for (state, answers) in [
            (NeighbourState::Incomplete, false),
            (NeighbourState::Failed, false),
            (NeighbourState::Reachable, true),
            (NeighbourState::Stale, true),
        ] {
            entry.header.state = state;
            assert_eq!(answer_to(&question, &entry).is_some(), answers, "{state:?}");
        }
        assert_eq!(answer_to(&Question { device: 3, ..question.clone() }, &entry), None);
        assert_eq!(answer_to(&Question { ip: "192.0.2.6".parse().unwrap(), ..question }, &entry), None);
    }

    #[test]
    fn failing_to_ask_is_an_error_only_where_the_configuration_says_so_and_an_answer_always_is() {
        let failure = || NetError::NoDevice { name: "eth9".into() };
        assert!(judge(failure(), false, &[]).is_ok());
        assert!(matches!(judge(failure(), true, &[]), Err(NetError::DetectionFailed { .. })));
        let taken = NetError::AddressInUse { address: "192.0.2.5".parse().unwrap(), holder: Holder::Host };
        assert!(matches!(judge(taken, false, &[]), Err(NetError::AddressInUse { .. })));
    }
}
