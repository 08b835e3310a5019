//! `parsec bench cluster`: the files of a cluster on machines of its own.

use std::os::unix::fs::PermissionsExt;

use crate::args::ClusterFilesArgs;
use crate::failure::{Context, Failure, failed};
use crate::processes::hosts_file::{HostsFile, Machine};
use crate::processes::plan::file_of;
use crate::processes::ssh::quoted;

/// The script that copies the files to the machines.
const SCRIPT: &str = "install.sh";

/// Writes configuration, certificates, and a script that copies them to the machines.
///
/// # Errors
/// If the file names no such cluster, or there are other certificates already.
pub(super) fn write(args: &ClusterFilesArgs) -> Result<(), Failure> {
    let file = HostsFile::load(&args.hosts_file)?;
    let hosts = args.hosts.unwrap_or_else(|| file.hosts());
    let mut plan = file.plan(hosts, args.partitions)?;
    plan.workers_per_partition = usize::from(args.workers);
    if args.out.join("certs").exists() {
        let out = args.out.display();
        return Err(failed(format!("{out} has certificates already, maybe for other machines")));
    }
    plan.write_issued(&args.out, &[], |_| plan.nodes.clone())?;
    let machines = file.machines(hosts);
    let script = args.out.join(SCRIPT);
    std::fs::write(&script, install(&machines)).context(script.display())?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).context(script.display())?;
    println!("{} copies each node's files to its machine; then start the nodes:", script.display());
    for machine in &machines {
        println!("  {}", start(machine));
    }
    println!("clients connect to {} with certs/ca/ca.pem", plan.clients);
    Ok(())
}

fn install(machines: &[Machine]) -> String {
    let mut script = "#!/bin/sh\n# Copies each node's files to its machine.\nset -e\n\
        cd \"$(dirname \"$0\")\"\n"
        .to_owned();
    for Machine { node, target, directory, .. } in machines {
        let certificates = format!("{directory}/certs");
        // The shell there reads the command once more.
        let make = quoted(&format!("umask 077; mkdir -p {}", quoted(&certificates)));
        let target = quoted(target);
        script += &format!("ssh {target} {make}\n");
        for (what, to) in [
            (format!("certs/node-{node}"), format!("{certificates}/")),
            (file_of(*node).display().to_string(), format!("{directory}/")),
        ] {
            script += &format!("scp -q -p -r {what} {target}:{}\n", quoted(&to));
        }
    }
    script
}

fn start(Machine { node, target, directory, program }: &Machine) -> String {
    let file = file_of(*node);
    let run =
        format!("cd {} && exec {} node {}", quoted(directory), quoted(program), file.display());
    format!("ssh {} {}", quoted(target), quoted(&run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_reach_the_shell_there_as_one_word() {
        let machine = Machine {
            node: 2,
            target: "bench@two".to_owned(),
            directory: "/a b".to_owned(),
            program: "parsec".to_owned(),
        };
        let script = install(std::slice::from_ref(&machine));
        assert!(script.contains("ssh bench@two 'umask 077; mkdir -p '\\''/a b/certs'\\'''\n"));
        assert!(script.contains("scp -q -p -r certs/node-2 bench@two:'/a b/certs/'\n"), "{script}");
        let started = start(&machine);
        assert_eq!(started, "ssh bench@two 'cd '\\''/a b'\\'' && exec parsec node node-2.toml'");
    }
}
