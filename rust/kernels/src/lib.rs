//! Attention, recurrent cells and the matrix product behind them.
