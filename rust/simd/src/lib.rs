//! The Isa token, vectors of lanes, and detect-once dispatch.
