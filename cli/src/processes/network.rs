//! A network for a cluster on one machine: each node in a namespace of its own, on one bridge.
//!
//! Everything is done by the program `ip`. What is to be run is a list of commands, so that it
//! can be looked at without being root.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::owner::Owner;
use crate::failure::{Context, Failure, failed};

/// Most nodes: their addresses end in 2 to 254.
pub const NODES_MAX: u16 = 253;

/// Subnets that are tried: 10.192.0.0/24 to 10.255.255.0/24.
const SUBNETS: u32 = 64 * 256;

/// A network that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    owner: Owner,
    /// The first three bytes of all addresses.
    subnet: [u8; 3],
    nodes: u16,
}

impl NetworkPlan {
    /// A network for so many nodes in a subnet that no interface of this machine is in. `taken`
    /// are the addresses of interfaces, with the length of their prefix.
    ///
    /// # Errors
    /// If there are too many nodes, or no subnet is free.
    pub fn new(owner: Owner, nodes: u16, taken: &[(Ipv4Addr, u8)]) -> Result<Self, Failure> {
        if nodes > NODES_MAX {
            return Err(failed(format!("{nodes} nodes are more than {NODES_MAX} on one bridge")));
        }
        // Runs begin at places of their own, since they see each other's interfaces only later.
        let first = owner.process.wrapping_mul(16).wrapping_add(owner.cluster.into());
        let mut subnets = (0..SUBNETS).map(|number| subnet(first.wrapping_add(number) % SUBNETS));
        let is_free = |subnet: &[u8; 3]| !taken.iter().any(|other| overlaps(*subnet, *other));
        let subnet = subnets.find(is_free).ok_or_else(|| failed("no subnet of 10/8 is free"))?;
        Ok(Self { owner, subnet, nodes })
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The address of this machine in it.
    #[must_use]
    pub fn driver(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The address of a node.
    #[must_use]
    pub fn node(&self, node: u16) -> Ipv4Addr {
        // There are at most 253 nodes.
        self.address(u8::try_from(node + 2).unwrap_or(u8::MAX))
    }

    /// What is put before a command so that it runs at a node.
    #[must_use]
    pub fn enter(&self, node: u16) -> Vec<OsString> {
        let words = ["ip", "netns", "exec"].map(OsString::from);
        words.into_iter().chain([self.owner.name(node).into()]).collect()
    }

    /// The commands that make it, in order.
    #[must_use]
    pub fn set_up(&self) -> Vec<String> {
        let bridge = self.owner.bridge();
        let mut commands = vec![
            format!("ip link add {bridge} type bridge"),
            format!("ip addr add {}/24 dev {bridge}", self.driver()),
            format!("ip link set {bridge} up"),
        ];
        for node in 0..self.nodes {
            let (name, interface) = (self.owner.name(node), self.owner.interface(node));
            commands.extend([
                format!("ip netns add {name}"),
                format!("ip link add {interface} type veth peer name eth0 netns {name}"),
                format!("ip link set {interface} master {bridge} up"),
                format!("ip -n {name} addr add {}/24 dev eth0", self.node(node)),
                format!("ip -n {name} link set eth0 up"),
                format!("ip -n {name} link set lo up"),
            ]);
        }
        commands
    }

    /// The commands that remove it. Each may fail, where it was made in part only.
    #[must_use]
    pub fn take_down(&self) -> Vec<String> {
        // An interface ends with the namespace that the other end is in.
        let nodes = (0..self.nodes).map(|node| format!("ip netns del {}", self.owner.name(node)));
        let interfaces =
            (0..self.nodes).map(|node| format!("ip link del {}", self.owner.interface(node)));
        let bridge = format!("ip link del {}", self.owner.bridge());
        nodes.chain(interfaces).chain([bridge]).collect()
    }
}

fn subnet(number: u32) -> [u8; 3] {
    let [_, _, high, low] = number.to_be_bytes();
    [10, 192 + high % 64, low]
}

/// Whether a /24 subnet shares addresses with the one of an interface.
fn overlaps([a, b, c]: [u8; 3], (address, prefix): (Ipv4Addr, u8)) -> bool {
    let own = u32::from(Ipv4Addr::new(a, b, c, 0));
    let common = u32::from(prefix.min(24));
    let mask = u32::MAX.checked_shl(32 - common).unwrap_or(0);
    own & mask == u32::from(address) & mask
}

/// A network that exists. Dropping it removes it; the processes in it must have ended.
#[derive(Debug)]
pub struct Network {
    plan: NetworkPlan,
}

impl Network {
    /// Makes a network for so many nodes.
    ///
    /// # Errors
    /// Which command failed, and what it said; nothing is left then.
    pub fn set_up(owner: Owner, nodes: u16) -> Result<Self, Failure> {
        let taken = addresses(&output("ip -o -4 addr show")?);
        let plan = NetworkPlan::new(owner, nodes, &taken)?;
        let commands = plan.set_up();
        // ORDER: whatever the commands come to, the drop of this removes what they made.
        let network = Self { plan };
        commands.iter().try_for_each(|command| output(command).map(drop))?;
        Ok(network)
    }

    /// Its addresses.
    #[must_use]
    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was never made, or is gone with something else, can't be removed.
        self.plan.take_down().iter().for_each(|command| drop(output(command)));
    }
}

/// The addresses of interfaces in what `ip -o -4 addr show` prints.
fn addresses(text: &str) -> Vec<(Ipv4Addr, u8)> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "inet").skip(1);
        let (address, prefix) = words.next()?.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    };
    text.lines().filter_map(of_line).collect()
}

/// The names in what `ip -o link show` and `ip netns list` print, of those owners that `is_gone`
/// tells, with the commands that remove them.
fn leftovers(
    links: &str,
    namespaces: &str,
    is_gone: impl Fn(Owner) -> bool,
) -> Vec<(String, String)> {
    let dead = |owner: Option<Owner>| owner.is_some_and(&is_gone);
    let first_word = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
    let namespaces = namespaces
        .lines()
        .filter_map(first_word)
        .filter(|name| dead(Owner::of_name(name)))
        .map(|name| (format!("ip netns del {name}"), name));
    // "7: NAME@OTHER: <…"
    let name = |line: &str| {
        let word = line.split_ascii_whitespace().nth(1)?.trim_end_matches(':').to_owned();
        Some(word.split('@').next().map_or_else(|| word.clone(), str::to_owned))
    };
    let links = links
        .lines()
        .filter_map(name)
        .filter(|name| dead(Owner::of_interface(name)))
        .map(|name| (format!("ip link del {name}"), name));
    namespaces.chain(links).map(|(command, name)| (name, command)).collect()
}

/// Removes what belongs to those owners that `is_gone` tells; returns the names.
///
/// # Errors
/// If what there is can't be listed.
pub fn remove_of(is_gone: impl Fn(Owner) -> bool) -> Result<Vec<String>, Failure> {
    let (links, namespaces) = (output("ip -o link show")?, output("ip netns list")?);
    let mut removed = Vec::new();
    for (name, command) in leftovers(&links, &namespaces, is_gone) {
        // An interface goes with its namespace.
        if output(&command).is_ok() {
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Runs a command without quotes in it. Returns what it prints.
fn output(command: &str) -> Result<String, Failure> {
    let mut words = command.split_ascii_whitespace();
    let program = words.next().ok_or_else(|| failed("an empty command"))?;
    let run = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = run.context(format!("can't run `{command}`"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("`{command}` failed: {}", said.trim())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { process: 0x1234, cluster: 2 };

    #[test]
    fn what_is_made_is_removed() {
        let plan = NetworkPlan::new(OWNER, 3, &[]).unwrap();
        let removed = plan.take_down();
        let made = plan.set_up();
        let names = made.iter().filter_map(|command| {
            let words: Vec<_> = command.split(' ').collect();
            match words[..] {
                ["ip", "link", "add", name, ..] => Some(format!("ip link del {name}")),
                ["ip", "netns", "add", name] => Some(format!("ip netns del {name}")),
                _ => None,
            }
        });
        let names: Vec<String> = names.collect();
        assert_eq!(names.len(), 1 + 2 * 3);
        for name in names {
            assert!(removed.contains(&name), "{name}");
        }
        assert!(
            made.contains(&format!("ip -n parsec-4660-2-1 addr add {}/24 dev eth0", plan.node(1)))
        );
        assert_eq!(plan.enter(2), ["ip", "netns", "exec", "parsec-4660-2-2"]);
    }

    #[test]
    fn subnets_that_are_taken_are_passed_over() {
        let free = NetworkPlan::new(OWNER, 2, &[]).unwrap();
        let taken = addresses(&format!(
            "1: lo    inet 127.0.0.1/8 scope host lo\\ valid\n4: x    inet {}/24 brd 1.2.3.4\nodd\n",
            free.node(0)
        ));
        assert_eq!(taken.len(), 2);
        let other = NetworkPlan::new(OWNER, 2, &taken).unwrap();
        assert_ne!(other.subnet, free.subnet);
        let all = [(Ipv4Addr::new(10, 0, 0, 1), 8)];
        assert!(NetworkPlan::new(OWNER, 2, &all).unwrap_err().to_string().contains("no subnet"));
        assert!(NetworkPlan::new(OWNER, NODES_MAX + 1, &[]).is_err());
        let most = NetworkPlan::new(OWNER, NODES_MAX, &[]).unwrap();
        assert_eq!(most.node(NODES_MAX - 1).octets()[3], 254);
    }

    #[test]
    fn only_what_dead_runs_left_is_removed() {
        let links = "1: lo: <LOOPBACK,UP> mtu 65536\n7: prs1234.2b: <BROADCAST>\n\
            8: prs1234.2n0@if2: <BROADCAST>\n9: prs99.0n1@if2: <B>\n";
        let namespaces = "parsec-4660-2-0 (id: 3)\nparsec-153-0-1\nother\n";
        let found = leftovers(links, namespaces, |owner| owner.process != 0x99);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["parsec-4660-2-0", "prs1234.2b", "prs1234.2n0"]);
        assert_eq!(found[2].1, "ip link del prs1234.2n0");
        assert!(leftovers(links, namespaces, |_| false).is_empty());
    }

    #[test]
    fn a_command_that_fails_is_quoted_with_what_it_said() {
        let said = output("ls /no/such/place").unwrap_err().to_string();
        assert!(said.contains("`ls /no/such/place` failed: ls:"), "{said}");
        assert!(output("no-such-program-here").is_err());
    }
}
