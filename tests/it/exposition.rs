//! The exposition reader against real bodies, a slow reference, a second parser and hostile input.

mod bodies;
mod lines;
mod protobuf;
mod reference;
