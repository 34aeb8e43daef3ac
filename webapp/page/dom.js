// Elements of the page. Text is always text: nothing here, and nothing else, parses HTML.

export const find = (id) => document.getElementById(id);

/** An element. `on` holds listeners by event; a child is text, an element, or nothing. */
export function make(tag, attributes = {}, ...children) {
  const { on = {}, style = {}, ...rest } = attributes;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Text from outside: in the direction of its own letters. */
export const own = (text) => make("bdi", {}, String(text));

/** Fill a select; each option is [value, text]. Keeps the choice where it still exists. */
export function choices(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

/** A sentence for screen readers. */
export function say(text) {
  find("said").textContent = text;
}

/** What went wrong, or nothing. */
export function problem(text = "") {
  find("problem").textContent = text;
  find("problem").hidden = !text;
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A number with its sign, with a real minus. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 ? "\u2212" : "+") + text;
}
