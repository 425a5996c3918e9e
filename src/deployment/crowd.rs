//! Workspaces that wait, in a value small enough to be copied.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Workspaces that a crowd tells apart; those that come later are not counted.
const CROWD_MAX: usize = 6;

/// A workspace as a number: the same for the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub u64);

impl Tenant {
    /// Of the workspace with this name.
    pub fn of(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Number of waiting requests, by workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd([Option<(Tenant, u32)>; CROWD_MAX]);

impl Crowd {
    /// So many more of this workspace.
    pub fn add(&mut self, tenant: Tenant, count: u32) {
        let is_its = |place: &&mut Option<(Tenant, u32)>| match place {
            Some((other, _)) => *other == tenant,
            None => true,
        };
        if let Some(place) = self.0.iter_mut().find(is_its) {
            let before = place.map_or(0, |(_, before)| before);
            *place = Some((tenant, before + count));
        }
    }

    /// Each workspace, and how many of its requests wait.
    pub fn iter(&self) -> impl Iterator<Item = (Tenant, u32)> + '_ {
        self.0.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_counts_by_workspace_and_is_bounded() {
        let (mut crowd, acme) = (Crowd::default(), Tenant::of("acme"));
        for n in 0..20 {
            crowd.add(acme, 2);
            crowd.add(Tenant(n), 1);
        }
        assert_eq!(crowd.iter().next(), Some((acme, 40)));
        assert_eq!(crowd.iter().count(), CROWD_MAX);
    }
}
