//! Tells from the clocks that the machine slept or was paused, or that this process was stopped, and
//! what the network of this machine is.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::{InterfaceFlags, if_nametoindex},
    time::{ClockId, clock_gettime},
};

/// How far the clocks may differ, or a look be late.
const GAP: Duration = Duration::from_secs(2);

/// The three clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clocks {
    /// Stands still while the machine sleeps.
    pub(super) monotonic: Instant,
    /// Runs on while the machine sleeps.
    pub(super) boot: Duration,
    /// What people's clocks say.
    pub(super) wall: SystemTime,
}

impl Clocks {
    /// The clocks now.
    pub(super) fn read() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let boot = ClockId::CLOCK_BOOTTIME;
        // macOS runs its CLOCK_MONOTONIC on while it sleeps.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let boot = ClockId::CLOCK_MONOTONIC;
        let boot = clock_gettime(boot).map(Duration::from).unwrap_or_default();
        Self { monotonic: Instant::now(), boot, wall: SystemTime::now() }
    }

    /// When the machine was started, by its wall clock.
    pub(super) fn booted(&self) -> Option<SystemTime> {
        self.wall.checked_sub(self.boot)
    }

    /// How long was slept, paused or stopped between `self` and `later`, if at all; a look was due
    /// after `period`.
    pub(super) fn slept_until(&self, later: &Self, period: Duration) -> Option<Duration> {
        let ran = later.monotonic.saturating_duration_since(self.monotonic);
        let booted = later.boot.saturating_sub(self.boot);
        let walled = later.wall.duration_since(self.wall).unwrap_or_default();
        let late = ran.saturating_sub(period);
        let slept = booted.max(walled).saturating_sub(ran).max(late);
        (slept >= GAP).then_some(slept)
    }
}

/// By what ways this machine reaches others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Its addresses apart from loopback and link-local ones, and those of interfaces that are off
    /// or without a carrier: IPv4 ones stay there.
    addresses: BTreeSet<IpAddr>,
    /// Whether the system does not say which.
    is_unknown: bool,
    /// Its default routes: interface and next hop, as the kernel writes them. Where a remote's server is
    /// known, the kernel is asked for the way there instead.
    defaults: BTreeSet<String>,
}

impl Network {
    /// The network now; routes that cannot be read count as not there.
    pub(super) fn read() -> Self {
        let table = |path| fs::read_to_string(path).unwrap_or_default();
        let mut defaults = defaults_v4(&table("/proc/thread-self/net/route"));
        defaults.extend(defaults_v6(&table("/proc/thread-self/net/ipv6_route")));
        let addresses = addresses();
        Self { is_unknown: addresses.is_none(), addresses: addresses.unwrap_or_default(), defaults }
    }

    /// Whether anything but this machine can be reached.
    pub(super) fn is_up(&self) -> bool {
        self.is_unknown || !self.addresses.is_empty()
    }
}

/// The default routes in a table as in proc(5), `/proc/net/route`.
fn defaults_v4(table: &str) -> BTreeSet<String> {
    let default = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let (interface, destination) = (columns.next()?, columns.next()?);
        let gateway = columns.next()?;
        let mask = columns.nth(4)?;
        (destination == "00000000" && mask == "00000000").then(|| format!("{interface} {gateway}"))
    };
    table.lines().filter_map(default).collect()
}

/// The default routes in `/proc/net/ipv6_route`; the kernel's own "no route" is on `lo`.
fn defaults_v6(table: &str) -> BTreeSet<String> {
    let default = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let (destination, length) = (columns.next()?, columns.next()?);
        let gateway = columns.nth(2)?;
        let interface = columns.nth(4)?;
        let is_default = length == "00" && destination.bytes().all(|byte| byte == b'0');
        (is_default && interface != "lo").then(|| format!("{interface} {gateway}"))
    };
    table.lines().filter_map(default).collect()
}

/// Every address of this machine, also those of interfaces that are off or without a carrier, which
/// may come back; `None` if the system does not say.
pub(super) fn own_addresses() -> Option<BTreeSet<IpAddr>> {
    let interfaces = getifaddrs().ok()?;
    Some(interfaces.filter_map(|interface| address_of(&interface)).collect())
}

fn address_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address?;
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// The indices of the interfaces that are on and have a carrier; `None` if the system does not say.
pub(super) fn running_interfaces() -> Option<BTreeSet<u32>> {
    let names: BTreeSet<String> = running()?.map(|interface| interface.interface_name).collect();
    Some(names.iter().filter_map(|name| if_nametoindex(name.as_str()).ok()).collect())
}

fn addresses() -> Option<BTreeSet<IpAddr>> {
    let addresses = running()?.filter_map(|interface| address_of(&interface));
    Some(addresses.filter(|address| is_routable(*address)).collect())
}

/// The addresses of interfaces that are on and have a carrier.
fn running() -> Option<impl Iterator<Item = InterfaceAddress>> {
    let at_work = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let interfaces = getifaddrs().ok()?;
    Some(interfaces.filter(move |interface| interface.flags.contains(at_work)))
}

fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(clocks: Clocks, ran: u32, booted: u32, walled: u32) -> Option<Duration> {
        let later = Clocks {
            monotonic: clocks.monotonic + SECOND * ran,
            boot: clocks.boot + SECOND * booted,
            wall: clocks.wall + SECOND * walled,
        };
        clocks.slept_until(&later, SECOND)
    }

    #[test]
    fn tells_sleep_pause_and_stop_from_a_usual_second() {
        let clocks = Clocks::read();
        assert_eq!(after(clocks, 1, 1, 1), None);
        assert_eq!(after(clocks, 2, 2, 2), None, "a busy machine");
        assert_eq!(after(clocks, 1, 31, 31), Some(SECOND * 30), "sleep");
        assert_eq!(after(clocks, 1, 1, 11), Some(SECOND * 10), "a paused virtual machine");
        assert_eq!(after(clocks, 9, 9, 9), Some(SECOND * 8), "a stopped process");
    }

    #[test]
    fn a_wall_clock_set_back_is_no_sleep() {
        let clocks = Clocks::read();
        let later = Clocks { wall: clocks.wall - SECOND * 3600, ..clocks };
        assert_eq!(clocks.slept_until(&later, SECOND), None);
    }

    #[test]
    fn reads_the_default_routes() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(defaults_v4(v4), BTreeSet::from(["eth0 010200C0".to_owned()]));
        let (zero, hop) = ("0".repeat(32), format!("fe80{}1", "0".repeat(27)));
        let v6 = format!(
            "{zero} 00 {zero} 00 {hop} 00000400 00000001 00000000 00000003 wlan0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
             fe80{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 wlan0\n",
            "0".repeat(28)
        );
        assert_eq!(defaults_v6(&v6), BTreeSet::from([format!("wlan0 {hop}")]));
        assert_eq!(defaults_v4("nonsense\n\n"), BTreeSet::new());
    }
}
