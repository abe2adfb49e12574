//! The valid matrix. Files are parsed into these types by `matrix::read`; a value that exists is a valid one, so
//! compiling, judging and reporting never check ids, roles or ports again.
//!
//! Order is the order of the files and of the rows in them, and indices into it are stable for the life of a
//! [`Matrix`]: tables and counters are keyed on them.

use super::binding::Binding;
use super::id::{RequirementId, RoleId, SystemId};
use super::service::Service;

/// Position of a system in [`Matrix::systems`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIndex(pub u32);

/// Position of a role in [`System::roles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleIndex(pub u32);

/// Position of a requirement in [`System::requirements`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequirementIndex(pub u32);

/// Position of a service in [`Requirement::services`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceIndex(pub u32);

macro_rules! index {
    ($($name:ident),+) => {$(
        impl $name {
            /// The position as a slice index.
            #[must_use]
            pub const fn get(self) -> usize {
                self.0 as usize
            }

            /// The index of a position. The readers' caps keep positions far below the limit; beyond it the
            /// index saturates.
            #[must_use]
            pub fn from_position(position: usize) -> Self {
                Self(u32::try_from(position).unwrap_or(u32::MAX))
            }
        }
    )+};
}

index!(SystemIndex, RoleIndex, RequirementIndex, ServiceIndex);

/// A role that every system has without declaring it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltInRole {
    /// The host itself, over its loopback interface: 127.0.0.0/8 and ::1.
    Localhost,
    /// 255.255.255.255 and the directed broadcast address of any bound prefix.
    Broadcast,
    /// Every address.
    Any,
    /// An endpoint that the vendor's document does not name in a usable way: never observable.
    Unknown,
}

impl BuiltInRole {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Localhost, Self::Broadcast, Self::Any, Self::Unknown];

    /// The id under which a requirement names the role.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Localhost => "localhost",
            Self::Broadcast => "broadcast",
            Self::Any => "any",
            Self::Unknown => "unknown",
        }
    }

    /// The built-in role with this id, if there is one.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.id() == id)
    }
}

/// The role at one end of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleRef {
    /// A role that the system declares.
    Declared(RoleIndex),
    /// A role that every system has.
    BuiltIn(BuiltInRole),
}

/// Who may initiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// `from` initiates towards `to`; the port is `to`'s.
    #[default]
    Outbound,
    /// `to` initiates towards `from`; the port is `from`'s.
    Inbound,
    /// Either side may initiate, to the port on the other.
    Both,
}

impl Direction {
    /// The text of the matrix files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Both => "both",
        }
    }
}

/// Whether the product works without the requirement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Necessity {
    /// The product does not work without it.
    #[default]
    Required,
    /// The product works without it; silence is no problem.
    Optional,
    /// Required only if the condition holds; silence is no problem.
    Conditional {
        /// The condition in the words of the pack's author, never empty.
        condition: String,
    },
}

impl Necessity {
    /// The text of the matrix files, without the condition.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::Conditional { .. } => "conditional",
        }
    }

    /// The condition of a conditional requirement.
    #[must_use]
    pub fn condition(&self) -> Option<&str> {
        match self {
            Self::Required | Self::Optional => None,
            Self::Conditional { condition } => Some(condition),
        }
    }
}

/// Where in the vendor's document the requirement stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Provenance {
    /// The heading of the table.
    pub section: String,
    /// The row of the table, as the pack's author counts.
    pub row: u32,
}

/// The vendor's document that a pack was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// The name of the file that was read, if the pack names it.
    pub file: Option<String>,
}

/// A named class of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Unique in the system, never a built-in's.
    pub id: RoleId,
    /// The name that the vendor's document prints.
    pub title: Option<String>,
    /// Endpoints that are the same at every site; such a role needs no binding.
    pub names: Vec<Binding>,
}

/// One row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Unique in the system.
    pub id: RequirementId,
    /// The end that the row is about.
    pub from: RoleRef,
    /// The other end.
    pub to: RoleRef,
    /// Services of the responder, in file order, without duplicates. Empty where the document names no port: then
    /// no flow can be judged by it and it is unobservable.
    pub services: Vec<Service>,
    /// Who initiates.
    pub direction: Direction,
    /// Whether the product works without it.
    pub necessity: Necessity,
    /// The application protocol, where the document names it.
    pub application: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// Where it stands in the document.
    pub provenance: Option<Provenance>,
    /// What the pack's author could not make out in the document.
    pub doubts: Vec<String>,
}

impl Requirement {
    /// The pairs (initiator, responder) that the direction allows: one, or two for [`Direction::Both`].
    pub fn initiations(&self) -> impl Iterator<Item = (RoleRef, RoleRef)> + use<> {
        let forth = (self.from, self.to);
        let back = (self.to, self.from);
        let (first, second) = match self.direction {
            Direction::Outbound => (forth, None),
            Direction::Inbound => (back, None),
            // The same role at both ends would give the same pair twice.
            Direction::Both => (forth, (forth != back).then_some(back)),
        };
        std::iter::once(first).chain(second)
    }

    /// The services with their indices.
    pub fn indexed_services(&self) -> impl Iterator<Item = (ServiceIndex, Service)> + '_ {
        self.services
            .iter()
            .enumerate()
            .map(|(position, service)| (ServiceIndex::from_position(position), *service))
    }
}

/// One vendor product: the content of one rule pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Unique in the matrix.
    pub id: SystemId,
    /// The product's name.
    pub title: String,
    /// The product's version, as text.
    pub version: Option<String>,
    /// The document that the pack was made from.
    pub document: Option<Document>,
    /// Declared roles in file order.
    pub roles: Vec<Role>,
    /// Requirements in file order.
    pub requirements: Vec<Requirement>,
}

impl System {
    /// A declared role.
    #[must_use]
    pub fn role(&self, index: RoleIndex) -> &Role {
        &self.roles[index.get()]
    }

    /// The id of a role, declared or built in.
    #[must_use]
    pub fn role_id(&self, role: RoleRef) -> &str {
        match role {
            RoleRef::Declared(index) => self.role(index).id.as_str(),
            RoleRef::BuiltIn(role) => role.id(),
        }
    }

    /// Finds a declared role by its id.
    #[must_use]
    pub fn find_role(&self, id: &str) -> Option<RoleIndex> {
        self.roles
            .iter()
            .position(|role| role.id.as_str() == id)
            .map(RoleIndex::from_position)
    }

    /// A requirement.
    #[must_use]
    pub fn requirement(&self, index: RequirementIndex) -> &Requirement {
        &self.requirements[index.get()]
    }

    /// The declared roles with their indices.
    pub fn indexed_roles(&self) -> impl Iterator<Item = (RoleIndex, &Role)> + '_ {
        self.roles
            .iter()
            .enumerate()
            .map(|(position, role)| (RoleIndex::from_position(position), role))
    }

    /// The requirements with their indices.
    pub fn indexed_requirements(
        &self,
    ) -> impl Iterator<Item = (RequirementIndex, &Requirement)> + '_ {
        self.requirements
            .iter()
            .enumerate()
            .map(|(position, requirement)| (RequirementIndex::from_position(position), requirement))
    }
}

/// Names one service of one requirement in a [`Matrix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The system.
    pub system: SystemIndex,
    /// The requirement in the system.
    pub requirement: RequirementIndex,
    /// The service in the requirement.
    pub service: ServiceIndex,
}

/// All systems that were read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matrix {
    /// In the order in which the files were read; ids are unique.
    pub systems: Vec<System>,
}

impl Matrix {
    /// A system.
    #[must_use]
    pub fn system(&self, index: SystemIndex) -> &System {
        &self.systems[index.get()]
    }

    /// Finds a system by its id.
    #[must_use]
    pub fn find_system(&self, id: &str) -> Option<SystemIndex> {
        self.systems
            .iter()
            .position(|system| system.id.as_str() == id)
            .map(SystemIndex::from_position)
    }

    /// The systems with their indices.
    pub fn indexed_systems(&self) -> impl Iterator<Item = (SystemIndex, &System)> + '_ {
        self.systems
            .iter()
            .enumerate()
            .map(|(position, system)| (SystemIndex::from_position(position), system))
    }

    /// The requirement that a key names.
    #[must_use]
    pub fn requirement(&self, key: ServiceKey) -> &Requirement {
        self.system(key.system).requirement(key.requirement)
    }

    /// The service that a key names.
    #[must_use]
    pub fn service(&self, key: ServiceKey) -> Service {
        self.requirement(key).services[key.service.get()]
    }

    /// The id of a requirement in the whole matrix: `system/requirement`.
    #[must_use]
    pub fn requirement_id(&self, system: SystemIndex, requirement: RequirementIndex) -> String {
        let system = self.system(system);
        format!("{}/{}", system.id, system.requirement(requirement).id)
    }

    /// The id of a service in the whole matrix: `system/requirement#tcp/443`.
    #[must_use]
    pub fn service_id(&self, key: ServiceKey) -> String {
        format!(
            "{}#{}",
            self.requirement_id(key.system, key.requirement),
            self.service(key)
        )
    }

    /// Every service of every requirement, in stable order. Requirements without services do not appear.
    pub fn services(&self) -> impl Iterator<Item = (ServiceKey, &Requirement, Service)> + '_ {
        self.indexed_systems().flat_map(|(system, content)| {
            content
                .indexed_requirements()
                .flat_map(move |(requirement, row)| {
                    row.indexed_services().map(move |(service, value)| {
                        (
                            ServiceKey {
                                system,
                                requirement,
                                service,
                            },
                            row,
                            value,
                        )
                    })
                })
        })
    }
}
