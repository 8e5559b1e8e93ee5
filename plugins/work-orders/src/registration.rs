//! What is known of an asset: where it stands and what it takes to work on it.

use serde::{Deserialize, Serialize};

/// The longest check that can be asked for: one working day.
const MAX_CHECK_MINUTES: u32 = 8 * 60;

/// The most skills, and the most tools, that an asset can ask for.
const MAX_NEEDS: usize = 32;

/// The payload of `registry/assets/{asset}`, and what is kept of it. Fields that are left out have sensible defaults;
/// those that other services use are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registration {
    /// Where the asset stands.
    pub location: String,
    /// What a technician must be able to do to work on it.
    pub skills: Vec<String>,
    /// What a technician has to bring.
    pub tools: Vec<String>,
    /// How long a check of it takes.
    pub check_minutes: u32,
}

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistration {
    /// A check of no length, or one that no shift holds.
    #[error("a check of {0} minutes is outside 1..={MAX_CHECK_MINUTES}")]
    CheckMinutes(u32),
    /// Longer lists than anybody needs.
    #[error("{0} skills or tools are more than {MAX_NEEDS}")]
    TooMany(usize),
}

impl Default for Registration {
    /// What holds for an asset that nobody registered: anybody who can judge a bearing can go and look.
    fn default() -> Self {
        Self {
            location: "unknown".to_owned(),
            skills: vec!["bearings".to_owned()],
            tools: vec!["vibration-analyser".to_owned()],
            check_minutes: 60,
        }
    }
}

impl Registration {
    /// Checks what somebody sent.
    pub fn checked(self) -> Result<Self, InvalidRegistration> {
        let longest = self.skills.len().max(self.tools.len());
        if longest > MAX_NEEDS {
            return Err(InvalidRegistration::TooMany(longest));
        }
        if !(1..=MAX_CHECK_MINUTES).contains(&self.check_minutes) {
            return Err(InvalidRegistration::CheckMinutes(self.check_minutes));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_fits_into_a_working_day() {
        for check_minutes in [0, 481] {
            let registration = Registration { check_minutes, ..Registration::default() };
            assert_eq!(registration.checked(), Err(InvalidRegistration::CheckMinutes(check_minutes)));
        }
        assert!(Registration::default().checked().is_ok());
    }
}
