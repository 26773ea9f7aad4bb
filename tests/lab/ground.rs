//! A laptop, a router and a far machine, each in a network of its own.
//!
//!     laptop up0 ── lan0 router wan0 ── up0 far machine (sshd and gateway)
//!     10.1.0.2      10.1.0.1  10.2.0.1  10.2.0.2
//!     fd01::2       fd01::1   fd02::1   fd02::2
//!
//! What happens at the laptop's own interface is told by its kernel; what happens at the router
//! nobody tells.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    callers::Callers,
    net::Net,
    preload::library,
    support::{Ran, Run, Scene, openclaw, user, wait_until},
};

/// The far machine's addresses.
pub(crate) const FAR_V4: &str = "10.2.0.2";
/// The same of the other family.
pub(crate) const FAR_V6: &str = "fd02::2";

/// Which packets a router drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of them.
    Both,
    /// Those that come from the laptop.
    Out,
    /// Those that go to the laptop.
    In,
}

/// The place of most faults; the fields end in this order.
pub(crate) struct Ground {
    /// Programs and homes: the laptop's in `laptop`, the others in `far`.
    pub(crate) scene: Scene,
    /// The laptop's network.
    pub(crate) laptop: Net,
    /// The network in between.
    pub(crate) router: Net,
    /// The far machine's network.
    pub(crate) far: Net,
}

impl Ground {
    /// Everything runs, nothing is connected; the far machine has addresses of both families.
    pub(crate) fn new() -> Self {
        Self::listening(&[FAR_V4, FAR_V6])
    }

    /// The same with the SSH server at some of its addresses only.
    pub(crate) fn listening(addresses: &[&str]) -> Self {
        let lines: Vec<String> =
            addresses.iter().map(|address| format!("ListenAddress {address}")).collect();
        Self::with(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same with lines of the SSH server's configuration.
    pub(crate) fn with(lines: &[&str]) -> Self {
        let (laptop, router, far) = (Net::new(), Net::new(), Net::new());
        laptop.join("up0", &router, "lan0");
        far.join("up0", &router, "wan0");
        for (net, interface, v4, v6) in [
            (&laptop, "up0", "10.1.0.2", "fd01::2"),
            (&router, "lan0", "10.1.0.1", "fd01::1"),
            (&router, "wan0", "10.2.0.1", "fd02::1"),
            (&far, "up0", FAR_V4, FAR_V6),
        ] {
            net.ip(&format!("address add {v4}/24 dev {interface}"));
            net.ip(&format!("-6 address add {v6}/64 dev {interface} nodad"));
        }
        router.set("ipv4/ip_forward", "1");
        router.set("ipv6/conf/all/forwarding", "1");
        for (net, v4, v6) in [(&laptop, "10.1.0.1", "fd01::1"), (&far, "10.2.0.1", "fd02::1")] {
            net.ip(&format!("route add default via {v4}"));
            net.ip(&format!("-6 route add default via {v6}"));
        }
        let scene = far.inside(|| Scene::with(lines));
        for address in [FAR_V4, FAR_V6] {
            let line = scene.sshd.known_hosts_line_at(address, scene.sshd.port());
            scene.sshd.know(&line);
        }
        Self { scene, laptop, router, far }
    }

    /// The same with a remote named `vps` that is live.
    pub(crate) fn connected() -> Self {
        let ground = Self::new();
        ground.connect(FAR_V4).exits(0);
        ground
    }

    /// The same with a supervisor whose dials are noted: see [`dials`](Self::dials).
    pub(crate) fn connected_and_noted() -> Self {
        let ground = Self::new();
        let laptop = &ground.scene.laptop;
        let library = library(laptop, "dials.c");
        let run = ground.scene.dialling().args(["--name", "vps"]).env("LD_PRELOAD", library);
        let run = run.env("LAB_DIALS", laptop.path("dials")).arg(format!("{}@{FAR_V4}", user()));
        ground.run(run).exits(0);
        assert_eq!(ground.dials(), 1, "one to connect");
        ground
    }

    /// How often the kernel was asked for a connection to the far machine so far.
    pub(crate) fn dials(&self) -> usize {
        let noted = fs::read_to_string(self.scene.laptop.path("dials")).expect("noted dials");
        let addresses = noted.lines().filter_map(|line| Some(line.split_once(' ')?.0));
        addresses.filter(|address| [FAR_V4, FAR_V6].contains(address)).count()
    }

    /// `remote connect` to an address of the far machine.
    pub(crate) fn connect(&self, address: &str) -> Ran {
        let target = format!("{}@{address}", user());
        self.run(self.scene.dialling().args(["--json", "--name", "vps"]).arg(target))
    }

    /// Runs the program in the laptop's network.
    pub(crate) fn run(&self, run: Run) -> Ran {
        self.laptop.inside(|| run.run())
    }

    /// Runs a command on the laptop and fails unless it succeeds.
    #[track_caller]
    pub(crate) fn laptop(&self, arguments: &[&str]) -> Ran {
        self.run(openclaw(&self.scene.laptop).args(arguments).limit(Duration::from_secs(60)))
            .exits(0)
    }

    /// The status of the remote.
    pub(crate) fn status(&self) -> Value {
        self.laptop(&["remote", "status", "--json"]).json()[0].clone()
    }

    /// Waits until the status is as `wanted`.
    #[track_caller]
    pub(crate) fn status_when(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_until(what, limit, || Some(self.status()).filter(|status| wanted(status)))
    }

    /// Callers on the laptop.
    pub(crate) fn callers(&self) -> Callers {
        let callers = Callers::start(&self.laptop, self.scene.local_port);
        callers.succeed_after(Instant::now(), Duration::from_secs(20));
        callers
    }

    /// The router drops packets from now on, and tells nobody.
    pub(crate) fn lose(&self, loss: Loss) {
        let from = match loss {
            Loss::Both => "",
            Loss::Out => "iifname lan0 ",
            Loss::In => "iifname wan0 ",
        };
        self.router.nft(&format!(
            "table inet lab {{ chain loss {{ type filter hook forward priority 0; {from}drop; }}; }}"
        ));
    }

    /// The router drops nothing any more.
    pub(crate) fn pass(&self) {
        self.router.try_nft("delete table inet lab");
    }

    /// The laptop's interface is switched off.
    pub(crate) fn unplug(&self) {
        self.laptop.ip("link set up0 down");
    }

    /// It is on again, with the addresses and the route that it had.
    pub(crate) fn plug(&self) {
        self.laptop.ip("link set up0 up");
        self.laptop.ip("-6 address replace fd01::2/64 dev up0 nodad");
        self.route();
    }

    /// The laptop loses its default routes.
    pub(crate) fn unroute(&self) {
        self.laptop.ip("route delete default");
        self.laptop.ip("-6 route delete default");
    }

    /// It has them (again).
    pub(crate) fn route(&self) {
        self.laptop.ip("route replace default via 10.1.0.1");
        self.laptop.ip("-6 route replace default via fd01::1");
    }

    /// The laptop's addresses are taken away, and others given: `host` is the last part of both.
    pub(crate) fn move_to(&self, host: u8) {
        self.laptop.ip("address flush dev up0 scope global");
        self.laptop.ip(&format!("address add 10.1.0.{host}/24 dev up0"));
        self.laptop.ip(&format!("-6 address add fd01::{host:x}/64 dev up0 nodad"));
        self.route();
    }
}
