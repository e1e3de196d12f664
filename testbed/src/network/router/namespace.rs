//! A host's network namespace. Beside loopback its only interface is a TUN device, whose other end the router holds: every
//! packet that leaves the host passes the modelled network.

#![allow(
    unsafe_code,
    reason = "interfaces are set up by ioctl, and a child enters its namespace between fork and exec"
)]

use nix::{
    libc,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{MetadataExt as _, OpenOptionsExt as _},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// The interface's name in every namespace.
const INTERFACE: &str = "wan";
/// All hosts of a network are in this one: what goes to any of them leaves by the interface.
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 0, 0, 0);
/// Packets that wait for the router before the kernel drops some.
const QUEUE_LEN: i32 = 10_000;

/// How the interfaces of all hosts are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceSettings {
    /// Bytes of the greatest packet.
    pub mtu: u16,
    /// TCP hands over many packets at once, up to 64 KiB, which the router cuts only if one of them is lost. They travel
    /// together: not for links with a rate, or where packets are doubled or overtaken.
    pub offload: bool,
    /// TCP congestion control; none: as this machine has it.
    pub congestion_control: Option<String>,
}

impl Default for InterfaceSettings {
    fn default() -> InterfaceSettings {
        InterfaceSettings { mtu: 1500, offload: true, congestion_control: None }
    }
}

/// A network namespace; equal to its clones. It lasts as long as this, what [`tun`](Namespace::make) gave and processes in it do: nothing of it is
/// left in the file system.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl PartialEq for Namespace {
    fn eq(&self, other: &Namespace) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Namespace {
    /// Makes a namespace with a host at `address`. Gives also the router's end of its interface, non-blocking: each read is
    /// what the host sends, each write what it receives: a packet behind a `virtio_net_hdr`.
    ///
    /// Needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, which an unprivileged user has in a user namespace ([`become_root`]), and write permission
    /// on `/dev/net/tun`.
    pub fn make(address: Ipv4Addr, settings: &InterfaceSettings) -> io::Result<(Namespace, File)> {
        Namespace::fresh(|| interface(address, settings))
    }

    /// The namespace of a process, which has no interface but loopback yet, with what [`make`](Namespace::make) gives.
    ///
    /// Needs the rights of the namespace's owner: root's, if the process is a container's.
    pub fn of_process(pid: u32, address: Ipv4Addr, settings: &InterfaceSettings) -> io::Result<(Namespace, File)> {
        let namespace = Namespace(Arc::new(File::open(format!("/proc/{pid}/ns/net"))?));
        let tun = namespace.within(|| interface(address, settings))?;
        Ok((namespace, tun))
    }

    /// A namespace with nothing in it.
    pub fn empty() -> io::Result<Namespace> {
        Ok(Namespace::fresh(|| Ok(()))?.0)
    }

    /// A new namespace, with what `set_up` makes in it.
    fn fresh<T: Send>(set_up: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(Namespace, T)> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let made = set_up()?;
            Ok((Namespace(Arc::new(File::open("/proc/thread-self/ns/net")?)), made))
        })
    }

    /// A name of it in the file system, as long as this lasts.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// `command` is to run in this namespace.
    pub fn enter(&self, command: &mut Command) {
        let Namespace(file) = self.clone();
        let enter = move || Ok(setns(&*file, CloneFlags::CLONE_NEWNET)?);
        // SAFETY: setns is one system call; nothing is allocated between fork and exec.
        unsafe { command.pre_exec(enter) };
    }

    /// Does something in this namespace: sockets that it makes belong there for good.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&*self.0, CloneFlags::CLONE_NEWNET)?;
            act()
        })
    }
}

/// Makes this process the root of a user namespace of its own, in which it may make network namespaces without being root.
/// Only while it has one thread.
pub fn become_root() -> io::Result<()> {
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Moves this process, while it has one thread, into a network namespace that `owner` holds: `path` is one of its names
/// ([`Namespace::path`]).
pub fn join(owner: u32, path: &Path) -> io::Result<()> {
    // Before the user namespace: from within it others cannot be seen.
    let network = File::open(path)?;
    let user = File::open(format!("/proc/{owner}/ns/user"))?;
    if user.metadata()?.ino() != std::fs::metadata("/proc/self/ns/user")?.ino() {
        setns(&user, CloneFlags::CLONE_NEWUSER)?;
    }
    Ok(setns(&network, CloneFlags::CLONE_NEWNET)?)
}

/// A thread's namespace ends with it, so that no other thread is moved.
fn on_a_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, act)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes the interface of this thread's namespace. The router's end of it.
fn interface(address: Ipv4Addr, settings: &InterfaceSettings) -> io::Result<File> {
    let tun = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let kind = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads one `ifreq`.
    unsafe { ioctl::attach(tun.as_raw_fd(), &request(INTERFACE, |it| it.ifru_flags = kind)) }?;
    // It goes when the namespace does, with those of all others at once. At the close of this descriptor it would go alone,
    // for which the kernel waits until no processor looks at it any more.
    // SAFETY: the descriptor is a TUN device's, and the argument is a number.
    unsafe { ioctl::set_persistent(tun.as_raw_fd(), 1) }?;
    let offload = if settings.offload { (libc::TUN_F_CSUM | libc::TUN_F_TSO4) as libc::c_int } else { 0 };
    // SAFETY: the descriptor is a TUN device's, and the argument is a number.
    unsafe { ioctl::set_offload(tun.as_raw_fd(), offload) }?;
    set_up(address, settings)?;
    if let Some(name) = &settings.congestion_control {
        std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name)?;
    }
    Ok(tun)
}

/// Gives this thread's interfaces their addresses, and turns them on.
fn set_up(address: Ipv4Addr, settings: &InterfaceSettings) -> io::Result<()> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let fd = socket.as_raw_fd();
    let up = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads one `ifreq` each time.
    unsafe {
        ioctl::set_address(fd, &request(INTERFACE, |it| it.ifru_addr = socket_address(address)))?;
        ioctl::set_netmask(fd, &request(INTERFACE, |it| it.ifru_netmask = socket_address(NETMASK)))?;
        ioctl::set_mtu(fd, &request(INTERFACE, |it| it.ifru_mtu = settings.mtu.into()))?;
        // The queue's length has the place of the metric. Only the machine's own root may set it; others keep the kernel's
        // default of 500 packets.
        let _ = ioctl::set_queue_len(fd, &request(INTERFACE, |it| it.ifru_metric = QUEUE_LEN));
        ioctl::set_flags(fd, &request(INTERFACE, |it| it.ifru_flags = up))?;
        ioctl::set_flags(fd, &request("lo", |it| it.ifru_flags = up))?;
    }
    Ok(())
}

fn request(interface: &str, fill: impl FnOnce(&mut libc::__c_anonymous_ifr_ifru)) -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: all fields of the union are numbers, for which zero is a value.
    let mut value: libc::__c_anonymous_ifr_ifru = unsafe { std::mem::zeroed() };
    fill(&mut value);
    libc::ifreq { ifr_name: name, ifr_ifru: value }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

#[allow(missing_docs, reason = "each is the ioctl of that name")]
mod ioctl {
    use nix::libc;

    nix::ioctl_write_int_bad!(set_persistent, libc::TUNSETPERSIST);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(attach, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_address, libc::SIOCSIFADDR, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_netmask, libc::SIOCSIFNETMASK, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_queue_len, libc::SIOCSIFTXQLEN, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
}
