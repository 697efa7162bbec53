//! How a binding's instances are used, beside what its plugin and its configuration say.

/// On which terms a plugin is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Terms {
    pub role: Role,
    pub isolation: Isolation,
}

/// What becomes of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    #[default]
    Live,
    /// They are compared with the live ones and go nowhere.
    Shadow,
}

/// Who shares an instance, and so what it may remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// All requests of the binding.
    #[default]
    Shared,
    /// Those of one registered domain, for a while.
    Tenant,
    /// Nobody: each call has an instance of its own, and no answer is given again.
    Request,
}

impl Isolation {
    pub const ALL: [Self; 3] = [Self::Shared, Self::Tenant, Self::Request];
}

impl Terms {
    pub const SHADOW: Self = Self { role: Role::Shadow, isolation: Isolation::Shared };

    pub fn isolated(isolation: Isolation) -> Self {
        Self { isolation, ..Self::default() }
    }

    /// Bindings of one plugin and configuration on any of these can stand on one plan.
    pub fn all() -> impl Iterator<Item = Self> {
        let with = |isolation| [Role::Live, Role::Shadow].map(|role| Self { role, isolation });
        Isolation::ALL.into_iter().flat_map(with)
    }
}
