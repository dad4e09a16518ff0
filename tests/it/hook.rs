//! `rollgate hook`: the real binary, real commands, signed requests as they come over the wire.

mod commands;
mod contract;
mod crash;
mod examples;
mod memory;
mod order;
mod runbooks;
mod stand;
