// Catch: a ball falls one row a step, and a paddle in the bottom row should be below it.
const ROWS = 8, COLUMNS = 5;
exports.observation = { dtype: 'float32', shape: [ROWS, COLUMNS] };
exports.action = { dtype: 'int32', shape: [], num_values: 3 }; // left, stay, right
exports.Game = class {
  reset() {
    [this.row, this.ball, this.paddle] = [0, Math.floor(Math.random() * COLUMNS), COLUMNS >> 1];
    return { reward: 0, terminated: false };
  }
  step(action) {
    this.paddle = Math.min(Math.max(this.paddle + action - 1, 0), COLUMNS - 1);
    const terminated = ++this.row === ROWS - 1;
    return { reward: terminated ? (this.paddle === this.ball ? 1 : -1) : 0, terminated };
  }
  draw(board) { // float32 of ROWS * COLUMNS zeros
    board[this.row * COLUMNS + this.ball] = board[(ROWS - 1) * COLUMNS + this.paddle] = 1;
  }
};
