// A stroke gives every patch it crosses what its first one became; the mask is sent once, when the stroke ends.
let stroke = null;

const patchAt = (x, y) => {
  const found = document.elementFromPoint(x, y)?.closest('button[data-row]');
  return found && element.contains(found) ? found : null;
};
const isHidden = (patch) => patch.getAttribute('aria-pressed') === 'true';
const paint = (patch, hide) => {
  patch.setAttribute('aria-pressed', String(hide));
  patch.classList.toggle('hidden-patch', hide);
};
const send = () => {
  const rows = props.value.split('/').map((row) => [...row]);
  element.querySelectorAll('button[data-row]').forEach((patch) => {
    rows[+patch.dataset.row][+patch.dataset.column] = isHidden(patch) ? '1' : '0';
  });
  props.value = rows.map((row) => row.join('')).join('/');
  trigger('input');
};

element.addEventListener('pointerdown', (event) => {
  const patch = event.target.closest('button[data-row]');
  if (!patch || event.button !== 0) return;
  event.preventDefault();
  patch.releasePointerCapture?.(event.pointerId);  // a finger would stay with its first patch
  patch.focus();
  stroke = !isHidden(patch);
  paint(patch, stroke);
});
element.addEventListener('pointermove', (event) => {
  const patch = stroke === null ? null : patchAt(event.clientX, event.clientY);
  if (patch) paint(patch, stroke);
});
for (const name of ['pointerup', 'pointercancel']) {
  document.addEventListener(name, () => {
    if (stroke === null) return;
    stroke = null;
    send();
  });
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
element.addEventListener('keydown', (event) => {
  const patch = event.target.closest('button[data-row]');
  if (!patch) return;
  if (event.key === ' ' || event.key === 'Enter') {
    event.preventDefault();
    paint(patch, !isHidden(patch));
    send();
  } else if (STEPS[event.key]) {
    event.preventDefault();
    const [down, across] = STEPS[event.key];
    const [row, column] = [+patch.dataset.row + down, +patch.dataset.column + across];
    const next = element.querySelector(`button[data-row="${row}"][data-column="${column}"]`);
    if (!next) return;
    patch.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
});
