// Plays a recorded run again, slower than it was.

const MAX_PAUSE = 3000;  // milliseconds: a longer one is cut, at any speed
const MIN_PAUSE = 40;

export class Player {
  // `timeline` is stepped; `onChange` is called when playing begins and ends.
  constructor(timeline, onChange) {
    this.timeline = timeline;
    this.onChange = onChange;
    this.slower = 100;
    this.timer = null;
  }

  get isPlaying() { return this.timer !== null; }

  toggle() {
    if (this.isPlaying) this.stop();
    else this.play();
  }

  play() {
    const rows = this.timeline.rows;
    if (!rows.length) return;
    const at = this.timeline.index;
    if (at < 0 || at === rows.length - 1) this.timeline.goTo(0, { focus: false });
    this.timeline.list.classList.add("playing");
    this.schedule();
    this.onChange(true);
  }

  schedule() {
    const at = this.timeline.index, now = this.timeline.timeOf(at), next = this.timeline.timeOf(at + 1);
    const pause = Math.max(0, (next - now) / 1e6) * this.slower;
    this.timer = setTimeout(() => {
      this.timeline.goTo(at + 1, { focus: false });
      if (this.timeline.index >= this.timeline.rows.length - 1) this.stop();
      else this.schedule();
    }, Math.min(MAX_PAUSE, Math.max(MIN_PAUSE, pause)));
  }

  stop() {
    if (!this.isPlaying) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.timeline.list.classList.remove("playing");
    this.onChange(false);
  }
}
