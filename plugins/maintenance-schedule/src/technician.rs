//! Who can be sent: technicians, their skills and their shifts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::shift::{Shift, Weekday};

/// The most skills that a technician, or an order, can have.
pub const MAX_SKILLS: usize = 64;

/// The longest name, in bytes: it becomes part of a key.
pub const MAX_NAME_BYTES: usize = 128;

/// The payload of `registry/technicians/{technician}`, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Technician {
    /// The name that people use.
    pub name: String,
    /// What the technician can do.
    pub skills: BTreeSet<String>,
    /// When the technician works.
    pub shift: Shift,
    /// Whether the technician is there at all: `false` for somebody who is ill or has left.
    #[serde(default = "yes")]
    pub active: bool,
}

/// Why a technician is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTechnician {
    /// More skills than anybody has.
    #[error("{0} skills are more than {MAX_SKILLS}")]
    TooManySkills(usize),
    /// No day on which the shift could begin.
    #[error("the shift has no days")]
    NoDays,
    /// A name that cannot be part of a key.
    #[error("a technician's name of {0} bytes is empty or longer than {MAX_NAME_BYTES}")]
    Name(usize),
}

impl Technician {
    /// Checks what somebody sent.
    pub fn checked(self) -> Result<Self, InvalidTechnician> {
        if self.skills.len() > MAX_SKILLS {
            return Err(InvalidTechnician::TooManySkills(self.skills.len()));
        }
        if self.shift.days.is_empty() {
            return Err(InvalidTechnician::NoDays);
        }
        Ok(self)
    }

    /// Whether the technician may be sent on a check that needs these skills.
    pub fn can(&self, skills: &BTreeSet<String>) -> bool {
        self.active && skills.is_subset(&self.skills)
    }
}

/// Whom the service plans with until somebody registers a technician: one in each shift around the clock who can do
/// everything, and a specialist by day.
pub fn built_in() -> Vec<(String, Technician)> {
    let all = ["bearings", "alignment", "fans", "compressors", "motors"];
    let technician = |id: &str, name: &str, skills: &[&str], shift: Shift| {
        let skills = skills.iter().map(|skill| (*skill).to_owned()).collect();
        (id.to_owned(), Technician { name: name.to_owned(), skills, shift, active: true })
    };
    vec![
        technician("ada", "Ada Moreau", &all, Shift::of_hours(&Weekday::ALL, 6, 14)),
        technician("bo", "Bo Lindqvist", &all, Shift::of_hours(&Weekday::ALL, 14, 22)),
        technician("chika", "Chika Obi", &all, Shift::of_hours(&Weekday::ALL, 22, 6)),
        technician("dov", "Dov Levi", &["bearings", "motors"], Shift::of_hours(&Weekday::ALL[..5], 8, 16)),
    ]
}

/// Checks that a technician's name can be part of a key.
pub fn checked_name(technician: &str) -> Result<&str, InvalidTechnician> {
    if (1..=MAX_NAME_BYTES).contains(&technician.len()) {
        Ok(technician)
    } else {
        Err(InvalidTechnician::Name(technician.len()))
    }
}

fn yes() -> bool {
    true
}
