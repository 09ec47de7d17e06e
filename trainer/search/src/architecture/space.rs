//! The space of architectures: for each stage of a network of inverted residual blocks its kernel, expansion, gates,
//! depth and width, as Tan et al. 2019 ("MnasNet: platform-aware neural architecture search for mobile", section 4.1)
//! have it, with more kernels and expansions. Strides, stem and head are a skeleton's and stay.

use tallow_builder::Rng;
use tallow_models::{Scaling, Stage, Table};

/// Sides of the depthwise convolutions' windows.
const KERNELS: [usize; 3] = [3, 5, 7];
/// Channels inside a block over those of its input.
const EXPANSIONS: [usize; 4] = [1, 3, 4, 6];
/// Width of the squeeze-and-excitation over that of a block's input.
const GATES: [f64; 2] = [0.0, 0.25];
/// Blocks more than the skeleton's stage has.
const DEPTHS: [isize; 3] = [-1, 0, 1];
/// Factors on the channels of the skeleton's stage.
const WIDTHS: [f64; 3] = [0.75, 1.0, 1.25];

/// A stage's choices: a place in each of the lists above, in their order.
pub type Gene = [usize; 5];

/// A network's choices, stage by stage.
pub type Genome = Vec<Gene>;

/// How many there are to choose from.
const CHOICES: Gene = [KERNELS.len(), EXPANSIONS.len(), GATES.len(), DEPTHS.len(), WIDTHS.len()];

/// All networks that share a skeleton.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    skeleton: Table,
}

impl Space {
    /// The networks around a skeleton.
    pub fn new(skeleton: Table) -> Self {
        Self { skeleton }
    }

    /// The choices that come nearest to the skeleton itself.
    pub fn start(&self) -> Genome {
        let nearest = |list: &[f64], value: f64| {
            let distance = |i: &usize| (list[*i] - value).abs();
            (0..list.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
        };
        let gene = |stage: &Stage| {
            [
                nearest(&KERNELS.map(|kernel| kernel as f64), stage.kernel as f64),
                nearest(&EXPANSIONS.map(|expand| expand as f64), stage.expand as f64),
                nearest(&GATES, stage.se.unwrap_or(0.0)),
                nearest(&DEPTHS.map(|depth| depth as f64), 0.0),
                nearest(&WIDTHS, 1.0),
            ]
        };
        self.skeleton.stages.iter().map(gene).collect()
    }

    /// Any choices, all equally likely.
    pub fn random(&self, rng: &mut Rng) -> Genome {
        self.skeleton.stages.iter().map(|_| CHOICES.map(|n| rng.below(n))).collect()
    }

    /// The same choices but for one, which is another one.
    pub fn mutate(&self, parent: &Genome, rng: &mut Rng) -> Genome {
        let mut child = parent.clone();
        let (stage, choice) = (rng.below(child.len()), rng.below(CHOICES.len()));
        let other = rng.below(CHOICES[choice] - 1);
        let now = &mut child[stage][choice];
        *now = if other < *now { other } else { other + 1 };
        child
    }

    /// The network that the choices stand for. Where a skeleton's stage is small, several may come to the same.
    pub fn table(&self, genome: &Genome) -> Table {
        let stage = |(stage, gene): (&Stage, &Gene)| {
            let width = Scaling { width: WIDTHS[gene[4]], depth: 1.0 };
            Stage {
                kernel: KERNELS[gene[0]],
                stride: stage.stride,
                expand: EXPANSIONS[gene[1]],
                se: Some(GATES[gene[2]]),
                repeats: stage.repeats.saturating_add_signed(DEPTHS[gene[3]]).max(1),
                channels: width.channels(stage.channels),
            }
        };
        let stages = self.skeleton.stages.iter().zip(genome).map(stage).collect();
        Table { stages, ..self.skeleton.clone() }
    }
}

/// What is different between two networks of a space, such as `stage 2: kernel 3 → 5`.
pub(super) fn change(from: &Table, to: &Table) -> String {
    let mut changes = vec![];
    for (nth, (a, b)) in from.stages.iter().zip(&to.stages).enumerate() {
        let values = [
            ("kernel", a.kernel as f64, b.kernel as f64),
            ("expand", a.expand as f64, b.expand as f64),
            ("se", a.se.unwrap_or(0.0), b.se.unwrap_or(0.0)),
            ("repeats", a.repeats as f64, b.repeats as f64),
            ("channels", a.channels as f64, b.channels as f64),
        ];
        let different = values.into_iter().filter(|(_, a, b)| a != b);
        changes.extend(different.map(|(name, a, b)| format!("stage {}: {name} {a} → {b}", nth + 1)));
    }
    changes.join(", ")
}

#[cfg(test)]
mod tests {
    use tallow_models::{Options, build};

    use super::*;

    #[test]
    fn every_network_of_the_space_builds() {
        let space = Space::new(Table::default().for_size(32, 4));
        let mut rng = Rng::new(5);
        let mut genome = space.random(&mut rng);
        for round in 0..200 {
            genome = if round % 10 == 0 { space.random(&mut rng) } else { space.mutate(&genome, &mut rng) };
            let table = Some(space.table(&genome));
            let scaling = Scaling { width: 0.25, depth: 1.0 };
            let options = Options { table, scaling, ..Options::new(10, 32) };
            let graph = build("efficientnet_b0", &options).unwrap();
            assert_eq!(graph.output_shape().elements(), 10);
        }
    }

    #[test]
    fn a_mutation_changes_one_choice() {
        let space = Space::new(Table::default());
        let mut rng = Rng::new(1);
        let mut parent = space.start();
        for _ in 0..500 {
            let child = space.mutate(&parent, &mut rng);
            let changed = parent.iter().flatten().zip(child.iter().flatten()).filter(|(a, b)| a != b).count();
            assert_eq!(changed, 1);
            assert!(child.iter().all(|gene| gene.iter().zip(CHOICES).all(|(choice, n)| *choice < n)));
            parent = child;
        }
    }

    #[test]
    fn the_start_is_the_skeleton() {
        let skeleton = tallow_models::find("efficientnet_b0").unwrap().table().unwrap();
        let space = Space::new(skeleton.clone());
        assert_eq!(space.table(&space.start()), skeleton);
        let mut genome = space.start();
        genome[1] = [1, 0, 0, 2, 2];
        assert_eq!(
            change(&skeleton, &space.table(&genome)),
            "stage 2: kernel 3 → 5, stage 2: expand 6 → 1, stage 2: se 0.25 → 0, stage 2: repeats 2 → 3, \
             stage 2: channels 24 → 32"
        );
    }
}
