//! How a binding's instances are used, beside what its plugin and its configuration say.

/// On which terms a plugin is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Terms {
    pub role: Role,
}

/// What becomes of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    #[default]
    Live,
    /// They are compared with the live ones and go nowhere.
    Shadow,
}

impl Terms {
    pub const SHADOW: Self = Self { role: Role::Shadow };

    /// Bindings of one plugin and configuration on any of these can stand on one plan.
    pub fn all() -> impl Iterator<Item = Self> {
        [Role::Live, Role::Shadow].into_iter().map(|role| Self { role })
    }
}
