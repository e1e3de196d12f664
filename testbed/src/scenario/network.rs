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
    /// TCP's congestion control on hosts of an emulated network, such as `cubic`; without it, this machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub congestion_control: Option<String>,
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
            congestion_control: None,
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

    /// Whether it is more than plain loopback.
    pub fn is_emulated(&self) -> bool {
        *self != Network::default()
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
