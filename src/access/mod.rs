//! ACCESS: who may do what. Tokens with roles and limits, the role that each RPC needs, and files
//! that are read again when they change. No transport.

mod book;
mod need;
mod reload;
mod shares;
mod token;

pub use book::{Book, Refused, check_name, moment};
pub use need::{Need, RPCS, need};
pub use reload::{Look, Reloaded, read_file};
pub use shares::{Share, Shares};
pub use token::{Caller, Quota, Role, Roles, Sources, digest, entry, mint};
