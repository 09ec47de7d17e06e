//! Where a process stands among the others, from the variables that launchers set: torchrun's, or those of Slurm's srun.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::host_list::first_host;

/// Ports that are tried where a launcher keeps MASTER_PORT for itself.
const BESIDE_THE_STORE: u16 = 4;
/// The range that ports derived from a Slurm job lie in: below the ephemeral ones, above the registered busy ones.
const SLURM_PORTS: (u16, u16) = (15_000, 15_000);

/// A process's place among those that train together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number among all, from 0.
    pub rank: usize,
    /// Its number on its host, from 0: the GPU that it computes on.
    pub local_rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Number of processes that share this host's cores, as far as is known: torchrun says it, and srun gives each task
    /// cores of its own.
    pub local_world_size: usize,
    /// The host of rank 0.
    pub master: String,
    /// The ports of rank 0 at which the others may find it; it takes the first that is free.
    pub ports: Vec<u16>,
}

impl Place {
    /// What the environment says: the variables RANK, WORLD_SIZE, LOCAL_RANK and, where there are several processes,
    /// MASTER_ADDR and MASTER_PORT, which torchrun sets, or else SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID, which
    /// srun sets for more than one task. `None` where neither is there.
    ///
    /// # Errors
    /// [`Error::Environment`] where one is missing or makes no sense.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Self::from_environment`], with the variables that `get` knows.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let variables = Variables { get: &|name| get(name).filter(|value| !value.trim().is_empty()) };
        let place = if variables.has("RANK") || variables.has("WORLD_SIZE") {
            Some(variables.torchrun()?)
        } else {
            variables.slurm()?
        };
        place.map(Self::checked).transpose()
    }

    /// This process's part of the host's cores.
    pub fn cores(&self) -> usize {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        (all / self.local_world_size.max(1)).max(1)
    }

    fn checked(self) -> Result<Self> {
        let Self { rank, local_rank, world_size, .. } = self;
        if world_size == 0 {
            return Err(wrong("WORLD_SIZE", 0, "there is at least one process"));
        }
        if rank >= world_size {
            let remedy =
                format!("ranks go from 0 to {} where there are {world_size} processes", world_size - 1);
            return Err(wrong("RANK", rank, remedy));
        }
        if local_rank > rank {
            let remedy = format!("a host has no more processes than all together, and RANK is {rank}");
            return Err(wrong("LOCAL_RANK", local_rank, remedy));
        }
        Ok(self)
    }
}

/// Variables, by name; an empty one counts as missing.
struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    fn has(&self, name: &str) -> bool {
        (self.get)(name).is_some()
    }

    fn required(&self, name: &'static str, remedy: &str) -> Result<String> {
        let missing = || Error::Environment {
            variable: name,
            value: None,
            remedy: format!("is not set, but the other variables of a launcher are: {remedy}"),
        };
        (self.get)(name).ok_or_else(missing)
    }

    fn torchrun(&self) -> Result<Place> {
        let remedy = "start with torchrun, srun or `tallow train --processes N`, or unset RANK and WORLD_SIZE for a \
                      single process";
        let number = |name| parse::<usize>(name, &self.required(name, remedy)?, "is no number from 0 on");
        let (rank, world_size) = (number("RANK")?, number("WORLD_SIZE")?);
        let local_rank = match (self.get)("LOCAL_RANK") {
            Some(value) => parse("LOCAL_RANK", &value, "is no number from 0 on")?,
            // Without it, all processes are taken to be on one host.
            None => rank,
        };
        let local_world_size = match (self.get)("LOCAL_WORLD_SIZE") {
            Some(value) => parse("LOCAL_WORLD_SIZE", &value, "is no number of processes")?,
            None => 1,
        };
        if world_size == 1 {
            // There is nobody to meet.
            let (master, ports) = ("localhost".into(), vec![]);
            return Ok(Place { rank, local_rank, world_size, local_world_size, master, ports });
        }
        let (master, port) = (self.required("MASTER_ADDR", remedy)?, self.required("MASTER_PORT", remedy)?);
        let port: u16 = parse("MASTER_PORT", &port, "is no port from 1 to 65535")?;
        if port == 0 {
            return Err(wrong("MASTER_PORT", port, "is no port from 1 to 65535"));
        }
        // Then torchrun's own store listens there.
        let taken = (self.get)("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let ports = if taken { beside(port) } else { vec![port] };
        Ok(Place { rank, local_rank, world_size, local_world_size, master, ports })
    }

    fn slurm(&self) -> Result<Option<Place>> {
        // A batch script itself has SLURM_PROCID = 0 but is no task of srun, and one task trains alone.
        let tasks = (self.get)("SLURM_STEP_NUM_TASKS").or_else(|| (self.get)("SLURM_NTASKS"));
        let Some((tasks, rank)) = tasks.zip((self.get)("SLURM_PROCID")) else { return Ok(None) };
        let in_step = (self.get)("SLURM_STEP_ID").or_else(|| (self.get)("SLURM_STEPID"));
        let world_size = parse("SLURM_NTASKS", &tasks, "is no number of tasks")?;
        if world_size == 1 || in_step.is_none() {
            return Ok(None);
        }
        let rank = parse("SLURM_PROCID", &rank, "is no number from 0 on")?;
        let remedy = "start the processes with srun";
        let local_rank = self.required("SLURM_LOCALID", remedy)?;
        let local_rank = parse("SLURM_LOCALID", &local_rank, "is no number from 0 on")?;
        let master = match (self.get)("MASTER_ADDR") {
            Some(master) => master,
            None => self.first_of_the_job()?,
        };
        let port = match (self.get)("MASTER_PORT") {
            Some(port) => parse("MASTER_PORT", &port, "is no port from 1 to 65535")?,
            None => {
                let job = self.required("SLURM_JOB_ID", "set MASTER_PORT to a free port")?;
                let job: u64 = parse("SLURM_JOB_ID", &job, "is no number; set MASTER_PORT to a free port")?;
                SLURM_PORTS.0 + (job % u64::from(SLURM_PORTS.1)) as u16
            }
        };
        Ok(Some(Place { rank, local_rank, world_size, local_world_size: 1, master, ports: vec![port] }))
    }

    /// The host on which rank 0 runs, which is the first that the step, or else the job, has.
    fn first_of_the_job(&self) -> Result<String> {
        let remedy = "set MASTER_ADDR to the host of rank 0";
        for name in ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"] {
            if let Some(list) = (self.get)(name) {
                let unreadable = || wrong(name, &list, format!("is no list of hosts: {remedy}"));
                return first_host(&list).ok_or_else(unreadable);
            }
        }
        self.required("SLURM_JOB_NODELIST", remedy)
    }
}

/// Ports next to one that is taken.
fn beside(port: u16) -> Vec<u16> {
    (1..=BESIDE_THE_STORE).map(|step| port.checked_add(step).unwrap_or(port - step)).collect()
}

fn parse<T: FromStr>(variable: &'static str, value: &str, problem: &str) -> Result<T> {
    let remedy =
        format!("{problem}: start with torchrun, srun or `tallow train --processes N`, which set it");
    value.trim().parse().map_err(|_| wrong(variable, value, remedy))
}

fn wrong(variable: &'static str, value: impl Display, remedy: impl Into<String>) -> Error {
    Error::Environment { variable, value: Some(value.to_string()), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Option<Place>> {
        let pairs: Vec<_> = text.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        Place::from_variables(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const TORCHRUN: &str =
        "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500";
    const SLURM: &str = "SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_LOCALID=1 SLURM_STEP_ID=0 SLURM_JOB_ID=123456 \
         SLURM_JOB_NODELIST=gpu[07-09]";

    #[test]
    fn torchrun_and_srun_are_understood() {
        let expected = Place {
            rank: 5,
            local_rank: 1,
            world_size: 8,
            local_world_size: 2,
            master: "10.0.0.1".into(),
            ports: vec![29500],
        };
        assert_eq!(place(TORCHRUN).unwrap(), Some(expected.clone()));
        let shared = place(&format!("{TORCHRUN} TORCHELASTIC_USE_AGENT_STORE=True")).unwrap().unwrap();
        assert_eq!(shared.ports, [29501, 29502, 29503, 29504]);
        let slurm = place(SLURM).unwrap().unwrap();
        let ports = vec![15_000 + (123_456 % 15_000) as u16];
        assert_eq!(
            slurm,
            Place {
                rank: 3,
                local_rank: 1,
                world_size: 4,
                local_world_size: 1,
                master: "gpu07".into(),
                ports
            }
        );
        let said = place(&format!("{SLURM} MASTER_ADDR=head MASTER_PORT=1234")).unwrap().unwrap();
        assert_eq!((said.master.as_str(), &said.ports[..]), ("head", &[1234][..]));
        // torchrun within a Slurm job.
        assert_eq!(place(&format!("{SLURM} {TORCHRUN}")).unwrap(), Some(expected));
    }

    #[test]
    fn a_single_process_is_left_alone() {
        for text in
            ["", "SLURM_JOB_ID=7 SLURM_PROCID=0", "SLURM_PROCID=0 SLURM_NTASKS=4", "RANK= WORLD_SIZE="]
        {
            assert_eq!(place(text).unwrap(), None, "{text}");
        }
        assert_eq!(place(&SLURM.replace("NTASKS=4", "NTASKS=1")).unwrap(), None);
    }

    #[test]
    fn one_process_of_a_launcher_needs_to_know_of_no_other() {
        let alone = place("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_PORT=none").unwrap().unwrap();
        assert_eq!((alone.rank, alone.world_size, alone.ports), (0, 1, vec![]));
        let error = place("RANK=1 WORLD_SIZE=1").unwrap_err().to_string();
        assert!(error.contains("RANK = `1`: ranks go from 0 to 0"), "{error}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_the_remedy() {
        for (text, parts) in [
            ("RANK=0", ["WORLD_SIZE is not set", "--processes"]),
            ("WORLD_SIZE=2", ["RANK is not set", "unset RANK"]),
            ("RANK=0 WORLD_SIZE=2", ["MASTER_ADDR is not set", "torchrun"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=h", ["MASTER_PORT is not set", "torchrun"]),
            ("RANK=2 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=1", ["RANK = `2`", "from 0 to 1"]),
            ("RANK=-1 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=1", ["RANK = `-1`", "is no number"]),
            ("RANK=0 WORLD_SIZE=0 MASTER_ADDR=h MASTER_PORT=1", ["WORLD_SIZE = `0`", "at least one"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=99999", ["MASTER_PORT = `99999`", "no port"]),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=0", ["MASTER_PORT = `0`", "no port"]),
            (
                "RANK=0 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=h MASTER_PORT=1",
                ["LOCAL_RANK = `1`", "RANK is 0"],
            ),
            ("SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_STEP_ID=0", ["SLURM_LOCALID is not set", "srun"]),
            (
                "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_STEP_ID=0 SLURM_LOCALID=1",
                ["SLURM_JOB_NODELIST is not set", "MASTER_ADDR"],
            ),
        ] {
            let error = place(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
