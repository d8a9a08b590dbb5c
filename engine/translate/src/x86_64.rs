//! The back end for x86-64 hosts.

#![allow(clippy::useless_conversion, reason = "dynasm! converts the register numbers that it is given")]

#[allow(unsafe_code)]
pub mod buffer;
pub mod codegen;
pub mod emitter;
#[allow(unsafe_code)]
pub mod enter;
pub mod float;
pub mod integer;
mod memory;
mod privileged;
