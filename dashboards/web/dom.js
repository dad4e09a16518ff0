// Building and updating the document. Text reaches it only as text nodes and attributes, never as
// markup, so nothing that an analysis is called can become part of the page.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `props` are attributes; `vars` sets CSS custom properties. */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** An SVG element. */
export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "vars") {
      for (const [key, val] of Object.entries(value)) element.style.setProperty(key, val);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Makes `live` look like `wanted` and touches only what differs: focus, selection, scroll position
 *  and running transitions survive. */
export function morph(live, wanted) {
  morphAttributes(live, wanted);
  const now = [...live.childNodes];
  const then = [...wanted.childNodes];
  then.forEach((child, index) => {
    const old = now[index];
    if (!old) live.append(child);
    else if (!isAlike(old, child)) old.replaceWith(child);
    else if (child.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== child.data) old.data = child.data;
    } else if (!old.hasAttribute("data-own")) morph(old, child);
  });
  now.slice(then.length).forEach((old) => old.remove());
}

function isAlike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName
    && (a.nodeType !== Node.ELEMENT_NODE || a.getAttribute("data-key") === b.getAttribute("data-key"));
}

function morphAttributes(live, wanted) {
  for (const { name, value } of [...wanted.attributes]) {
    // The policy forbids style attributes and allows the same through the object model.
    if (name === "style") {
      if (live.style.cssText !== wanted.style.cssText) live.style.cssText = wanted.style.cssText;
    } else if (live.getAttribute(name) !== value) live.setAttribute(name, value);
  }
  for (const { name } of [...live.attributes]) {
    const isUsers = name === "open" && live.nodeName === "DETAILS";
    if (!wanted.hasAttribute(name) && !isUsers) live.removeAttribute(name);
  }
}
