// Who waits at the station, with the predicted times.

import { byId, copyOf, count, seconds, sizeOf, still, write } from "./dom.js";
import { offerCancel } from "./scene.js";

const MOST_TICKETS = 24;

/** A request that waits. */
class Ticket {
  #page;
  #parts;

  constructor({ id, images, ...size }, page) {
    this.#page = page;
    [this.element, this.#parts] = copyOf("ticket");
    const { what, cancel } = this.#parts;
    what.textContent = `${count(images, page.noun())}, ${sizeOf(size)}`;
    cancel.addEventListener("click", () => page.cancel(id));
  }

  draw({ id, images, eta_s: eta, mayEnd }) {
    const { label } = this.#parts;
    const { name, own } = this.#page.describe({ id, image: 0 });
    write(this.#parts.eta, eta === null ? "" : `done in about ${seconds(eta)}`);
    if (label.title === name) return;
    label.textContent = label.title = name;
    this.element.classList.toggle("own", own);
    offerCancel(this.#parts, { name, noun: this.#page.noun(), pictures: images }, mayEnd);
  }

  /** Go to the lift, or away. */
  leave(way) {
    if (still.matches || document.hidden) return this.element.remove();
    this.element.dataset.way = way;
    this.element.inert = true;
    this.element.addEventListener("animationend", () => this.element.remove());
  }
}

/**
 * @param {object} page `cancel(id)`, `describe` and `noun` as the scene has them.
 */
export class Station {
  #page;
  #tickets = new Map();

  constructor(page) {
    this.#page = page;
  }

  /** Show who waits now; who is done soonest comes first. */
  draw(lift) {
    const due = ({ eta_s: eta }) => eta ?? Number.MAX_VALUE;
    const queue = lift.queue.toSorted((one, other) => due(one) - due(other));
    const shown = queue.slice(0, MOST_TICKETS);
    this.#remove(lift, new Set(shown.map(({ id }) => id)));
    this.#show(shown);
    const more = lift.waiting - shown.reduce((sum, { images }) => sum + images, 0);
    byId("queue-more").hidden = more <= 0;
    const noun = this.#page.noun();
    write(byId("queue-more"), shown.length ? `and ${count(more, `more ${noun}`)}`
      : `${count(more, noun)} of those aboard`);
    byId("nobody").hidden = more > 0 || byId("queue").childElementCount > 0;
  }

  /** Nothing is moved that is in its place, so that it keeps the focus. */
  #show(shown) {
    const list = byId("queue");
    let next = list.firstElementChild;
    for (const request of shown) {
      const { id } = request;
      if (!this.#tickets.has(id)) this.#tickets.set(id, new Ticket(request, this.#page));
      const ticket = this.#tickets.get(id);
      ticket.draw(request);
      while (next?.inert) next = next.nextElementSibling;
      if (next === ticket.element) next = next.nextElementSibling;
      else list.insertBefore(ticket.element, next);
    }
  }

  #remove(lift, staying) {
    const aboard = new Set([...lift.rows.values()].map(({ id }) => id));
    for (const [id, ticket] of this.#tickets) {
      if (staying.has(id)) continue;
      this.#tickets.delete(id);
      ticket.leave(aboard.has(id) ? "aboard" : "away");
    }
  }
}
