//! Why a block could not go on.

/// Why a block could not go on.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// What is wrong, and where.
    pub what: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
    /// An address of which only the driver knows what lies there.
    pub address: Option<usize>,
}

impl Failure {
    /// A failure without a remedy.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
    /// Adds what the reader should do.
    #[must_use]
    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
    /// Adds the address concerned.
    #[must_use]
    pub fn at(self, address: usize) -> Self {
        Self { address: Some(address), ..self }
    }
    /// Puts `context` in front.
    #[must_use]
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.what = format!("{context}: {}", self.what);
        self
    }
}
