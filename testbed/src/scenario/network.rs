//! What lies between the hosts, and how far their clocks and disks are from ideal ones.

use super::{Bytes, Fraction, Shift, Span};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// What lies between the hosts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Round trips: `loopback` is no wide area, `azure-50` the measured table of 50 regions.
    pub rtt: String,
    /// The part of the one-way delay by which single deliveries vary at most.
    pub jitter: Fraction,
    /// The part of packets that is lost on the way. A stream sends them again: it shows as delay.
    pub loss: Fraction,
    /// The part of frames that arrives twice (`delivery = "datagram"` only: a stream drops the copy).
    pub duplicate: Fraction,
    /// The part of frames that later ones overtake (`delivery = "datagram"` only: a stream waits for them).
    pub reorder: Fraction,
    /// Bytes a second that a host can send, and as many that it can receive; without it, no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bytes>,
    /// Bytes of datagrams that wait at most at each connection where a rate limits (`delivery = "datagram"` only: a
    /// stream's sender waits); what comes beyond is lost.
    pub queue: Bytes,
    /// What frames between storage points see.
    pub delivery: Delivery,
    /// Regions of caches and receivers: one after the other, and again from the first. Without it, all of the table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// The region of each storage point; if there are fewer, again from the first. Without it, far apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sp_regions: Vec<String>,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            rtt: Network::LOOPBACK.to_owned(),
            jitter: Fraction(0),
            loss: Fraction(0),
            duplicate: Fraction(0),
            reorder: Fraction(0),
            rate: None,
            queue: Bytes(1 << 20),
            delivery: Delivery::Stream,
            regions: Vec::new(),
            sp_regions: Vec::new(),
        }
    }
}

impl Network {
    /// No wide area.
    pub const LOOPBACK: &'static str = "loopback";
    /// The measured table.
    pub const AZURE_50: &'static str = "azure-50";

    /// The first key that asks for more than plain loopback, and how it is shown.
    pub(super) fn emulated(&self) -> Option<(&'static str, String)> {
        let plain = Network::default();
        let keys = [
            ("jitter", self.jitter != plain.jitter),
            ("loss", self.loss != plain.loss),
            ("duplicate", self.duplicate != plain.duplicate),
            ("reorder", self.reorder != plain.reorder),
            ("rate", self.rate != plain.rate),
            ("delivery", self.delivery != plain.delivery),
            ("regions", self.regions != plain.regions),
            ("sp_regions", self.sp_regions != plain.sp_regions),
        ];
        if self.rtt != plain.rtt {
            return Some(("rtt", format!("rtt = {:?}", self.rtt)));
        }
        keys.iter().find(|(_, differs)| *differs).map(|(key, _)| (*key, (*key).to_owned()))
    }
}

/// What frames between storage points see.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// As over TCP: order is kept, loss shows as delay, a cut stalls and then breaks the connection.
    #[default]
    Stream,
    /// Every frame alone: lost, doubled and overtaken. Harsher than any real transport; simulated only.
    Datagram,
}

/// How far clocks are off.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clocks {
    /// Each host's clock is off by a drawn time up to this, ahead or behind.
    pub skew: Span,
    /// Each host's clock runs fast or slow by a drawn rate up to this, in millionths.
    pub drift_ppm: u32,
    /// Hosts whose clocks are off by so much, in place of a drawn time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub offsets: BTreeMap<String, Shift>,
}

/// The disks of storage points and receivers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// How long a flush takes.
    pub flush: Span,
    /// Single flushes take up to this part longer.
    pub jitter: Fraction,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk { flush: Span(Duration::from_micros(300)), jitter: Fraction(0) }
    }
}
