//! What faults of links do to packets.

use super::FaultKind;
use crate::{
    network::{Disturbance, Disturbances, HostId, Hosts},
    scenario::{Direction, Fault, Span},
};

/// Begins, under a number, what `fault` does to the links between the host `here` and its peers among `names`, the names of
/// all hosts of the network. By plan it ends at `until_ns`.
pub(crate) fn disturb(
    disturbances: &mut Disturbances,
    number: u64,
    fault: &Fault,
    here: HostId,
    names: &[String],
    until_ns: u64,
) {
    let disturbance = match fault.kind {
        FaultKind::Loss => {
            Disturbance { loss_ppm: fault.loss.map_or(0, |loss| loss.0), loss_until_ns: until_ns, ..Disturbance::NONE }
        }
        FaultKind::SlowLink => Disturbance {
            rate: fault.rate.map(|rate| rate.0),
            delay_ns: fault.delay.map_or(0, |Span(delay)| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
            ..Disturbance::NONE
        },
        _ => Disturbance::CUT,
    };
    let there = fault.peer.as_ref().map_or(Hosts::All, |_| Hosts::Of(peers(fault, names).into_iter().collect()));
    let here = Hosts::one(here);
    let direction = fault.direction();
    if direction != Direction::In {
        disturbances.begin(number, here.clone(), there.clone(), disturbance);
    }
    if direction != Direction::Out {
        disturbances.begin(number, there, here, disturbance);
    }
}

/// The other ends that a fault names.
pub(crate) fn peers(fault: &Fault, names: &[String]) -> Vec<HostId> {
    let meant = fault.peer.as_ref().map_or(Vec::new(), |peer| peer.select(names));
    (0..).zip(names).filter(|(_, name)| meant.contains(&name.as_str())).map(|(at, _)| HostId(at)).collect()
}
