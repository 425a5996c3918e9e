//! Names that a caller may read in texts that name deployments.
//!
//! Decisions name the deployment that they were made for, which may be another project's. An
//! operator reads that it was another's, and not which: a name is shown only where its
//! instance is known to be one that they work on.

use std::collections::HashSet;

use super::access::Caller;
use super::view::{EventView, EvictedView, ExplainView};
use crate::config::Catalog;
use crate::deployment::Telling;
use crate::lifecycle::Explanation;
use crate::lifecycle::tell::events::Happening;
use crate::names::{DeploymentId, InstanceName};

/// The names that a caller may know.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    /// Every one: an admin's.
    All,
    /// The names of these instances.
    Of(HashSet<InstanceName>),
}

impl Sight {
    /// Sight of this caller, by the files in effect.
    pub(super) fn of(catalog: &Catalog, caller: &Caller) -> Self {
        if caller.is_admin() {
            return Self::All;
        }
        let all = catalog.instances.iter();
        let own = all.filter(|instance| caller.works_on(instance.belonging()));
        Self::Of(own.map(|instance| instance.name.clone()).collect())
    }

    /// True if the caller may know this name.
    pub(super) fn knows(&self, id: &DeploymentId) -> bool {
        match self {
            Self::All => true,
            Self::Of(instances) => instances.contains(id.instance()),
        }
    }

    /// A text, as the caller may read it.
    pub(super) fn read(&self, told: &Telling) -> String {
        told.for_reader(|id| self.knows(id))
    }

    /// An event, as the caller may read it.
    pub(super) fn event(&self, happening: &Happening) -> EventView {
        EventView {
            at: happening.at,
            deployment: self.name(&happening.deployment),
            text: self.read(&happening.text),
        }
    }

    /// An answer to why, as the caller may read it.
    pub(super) fn explanation(&self, explanation: &Explanation) -> ExplainView {
        let lines = explanation.lines.iter().map(|line| self.read(line));
        let evicts = explanation.evicts.iter().map(|evicted| EvictedView {
            deployment: self.name(&evicted.deployment),
            how: evicted.how.to_owned(),
            words: evicted.words.clone(),
        });
        ExplainView {
            deployment: self.name(&explanation.deployment),
            phase: explanation.phase.to_owned(),
            waits_for: explanation.waits_for.map(str::to_owned),
            lines: lines.collect(),
            evicts: evicts.collect(),
        }
    }

    fn name(&self, id: &DeploymentId) -> String {
        self.read(&Telling::from_iter([id.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Evicted;

    #[test]
    fn only_names_of_ones_own_are_read_in_every_answer() {
        let [mine, hers, gone] =
            ["mine/a", "hers/b", "gone/c"].map(|id| DeploymentId::parse(id).unwrap());
        let sight = Sight::Of(HashSet::from([InstanceName::new("mine").unwrap()]));
        let needed = |id: &DeploymentId| Telling::from_iter(["needed by ".into(), id.into()]);
        let another = "another project's deployment";
        for (id, read) in [(&mine, "mine/a"), (&hers, another), (&gone, another)] {
            let event = sight.event(&Happening {
                at: 7,
                deployment: mine.clone(),
                text: needed(id),
                mark: None,
            });
            assert_eq!(event.deployment, "mine/a");
            assert_eq!(event.text, format!("needed by {read}"));
            let why = sight.explanation(&Explanation {
                deployment: mine.clone(),
                phase: "placing",
                waits_for: None,
                lines: vec![needed(id)],
                evicts: vec![Evicted {
                    deployment: id.clone(),
                    how: "stops",
                    words: "idle 5s".to_owned(),
                }],
            });
            assert_eq!(why.lines, [format!("needed by {read}")]);
            assert_eq!(why.evicts[0].deployment, read);
            assert_eq!(Sight::All.read(&needed(id)), format!("needed by {id}"));
        }
    }
}
