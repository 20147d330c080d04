"""Draw a person in parts: a jointed skeleton in three dimensions is dressed, turned and projected.

Body coordinates are in units of the person's height: x points to the person's left, y to the front, and z up from the
ground. Seen from the front (yaw 0), x points to the right of the screen; yaw turns the front to that side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.synthetic.canvas import Canvas, Outline, Surface, capsule, ellipse, tube
from data.synthetic.identity import CHANNELS, SLOTS, Identity
from data.synthetic.texture import Field

FACE = Field(half_s=1.05, centre_v=0.68, half_v=0.36)  # the part of a head that hair leaves open
UNDER_CAP = Field(half_s=1.9, centre_v=0.9, half_v=0.45)
FACE_PARTS = (  # angle from the front, height, radii, material
    (-0.36, 0.932, (0.0085, 0.006), (0.10, 0.08, 0.08, 0.25, 0.96)),
    (0.36, 0.932, (0.0085, 0.006), (0.10, 0.08, 0.08, 0.25, 0.96)),
    (0.0, 0.894, (0.015, 0.0035), (0.50, 0.22, 0.20, 0.55, 1.0)),
)

HIP_Z, KNEE, SHIN, ANKLE_Z = 0.53, 0.245, 0.235, 0.045
SHOULDER_Z, UPPER_ARM, FOREARM, HAND = 0.805, 0.160, 0.145, 0.045
HEAD_Z, HEAD_HALF = 0.930, 0.068

# Cross-sections from neck to hem: height, half width (to the side), half depth (to the front).
TORSO = np.array(
    [
        (0.850, 0.030, 0.030),
        (0.838, 0.060, 0.040),
        (0.824, 0.096, 0.050),
        (0.795, 0.114, 0.058),
        (0.720, 0.112, 0.066),
        (0.640, 0.098, 0.062),
        (0.570, 0.100, 0.064),
        (0.510, 0.106, 0.068),
    ]
)
HIPS = np.array([(0.575, 0.096, 0.062), (0.53, 0.106, 0.070), (0.475, 0.096, 0.062), (0.455, 0.05, 0.03)])
SKIRT = np.array([(0.575, 0.092, 0.06), (0.52, 0.108, 0.072), (0.42, 0.122, 0.09), (0.31, 0.132, 0.105)])
LOOSE_HAIR = {
    "bob": np.array([(0.985, 0.034, 0.030), (0.955, 0.056, 0.044), (0.90, 0.060, 0.044), (0.868, 0.052, 0.038)]),
    "long": np.array([(0.985, 0.034, 0.030), (0.955, 0.057, 0.044), (0.87, 0.060, 0.040), (0.74, 0.056, 0.024)]),
}
CROWN = np.array([(1.006, 0.020, 0.022), (0.995, 0.040, 0.046), (0.970, 0.051, 0.060), (0.950, 0.052, 0.061)])
BACKPACK = np.array([(0.815, 0.045, 0.02), (0.795, 0.078, 0.042), (0.65, 0.086, 0.055), (0.57, 0.080, 0.05)])
SHOULDER_BAG = np.array([(0.575, 0.035, 0.070), (0.56, 0.040, 0.082), (0.445, 0.042, 0.086)])
HEMS = {"shirt": 0.510, "jacket": 0.485, "coat": 0.345}


@dataclass(frozen=True)
class Pose:
    """A pose is how the body is held."""

    phase: float
    """Phase of the walk, radians."""
    stride: float
    """Swing of the thighs at its largest, radians."""
    swing: float
    """Swing of the upper arms, radians."""
    elbow: float
    """Bend of the elbows, radians."""
    lean: float
    """Lean of the trunk to the front, radians."""


@dataclass(frozen=True)
class View:
    """A view says where the camera stands, and where the person stands in the image."""

    yaw: float
    """Radians; 0 shows the front, pi the back, and a positive angle turns the front to the right of the screen."""
    elevation: float
    """Elevation of the camera above the horizon, radians."""
    roll: float
    """Roll of the camera, radians."""
    height: float
    """Height of an average person, pixels."""
    foot: tuple[float, float]
    """Position of the feet: x, y in pixels."""


class _Projection:
    """Map body coordinates to pixels, with the depth that orders the parts."""

    def __init__(self, view: View, scale: float) -> None:
        self.scale, self.foot = scale, view.foot
        self.cos, self.sin = np.cos(view.yaw), np.sin(view.yaw)
        self.cos_elevation, self.sin_elevation = np.cos(view.elevation), np.sin(view.elevation)
        self.cos_roll, self.sin_roll = np.cos(view.roll), np.sin(view.roll)

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (..., 2) and nearness (...) of body coordinates (..., 3)."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        across, near = x * self.cos + y * self.sin, y * self.cos - x * self.sin
        up = z * self.cos_elevation - near * self.sin_elevation
        zoom = self.scale * (1 + 0.12 * near + 0.25 * self.sin_elevation * (z - 0.5))
        right, up = across * zoom, up * zoom
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = right * self.cos_roll + up * self.sin_roll + self.foot[0]
        pixels[..., 1] = right * self.sin_roll - up * self.cos_roll + self.foot[1]
        return pixels, near

    def half_width(self, half_lateral: np.ndarray, half_depth: np.ndarray) -> np.ndarray:
        """Return the pixels from the middle of an elliptic cross-section to its edge on the screen."""
        return self.scale * np.hypot(half_lateral * self.cos, half_depth * self.sin)


def draw_person(canvas: Canvas, identity: Identity, pose: Pose, view: View) -> None:
    """Paint the person's parts from the farthest to the nearest."""
    _Person(canvas, identity, pose, view).draw()


class _Person:
    """Collect a person's parts with their nearness, then paint them from far to near."""

    def __init__(self, canvas: Canvas, identity: Identity, pose: Pose, view: View) -> None:
        self.canvas, self.identity, self.pose, self.yaw = canvas, identity, pose, view.yaw
        self.shape, self.build = identity.shape, identity.shape.build
        self.sag = np.sin(view.elevation)
        self.project = _Projection(view, view.height * identity.height)
        self.parts: list[tuple[float, Outline, Surface]] = []

    def draw(self) -> None:
        hands = [self._arm(side) for side in (-1, 1)]
        for side in (-1, 1):
            self._leg(side)
        self._trunk()
        self._head()
        self._bag(hands)
        for _, (outline, frame), surface in sorted(self.parts, key=lambda part: part[0]):
            self.canvas.add(outline, frame, surface, self.yaw)

    # ---------------------------------------------------------------------------------------------- materials
    def _surface(self, slot: str, fields: tuple[Field, ...] | None = None, **look: float) -> Surface:
        values = self.identity.materials[SLOTS.index(slot)]
        return Surface(values, None if fields is None else np.array(fields, np.float32), **look)

    def _upper(self, piece: str) -> Surface:
        """Return the cloth of a piece of the upper garment ('body' or 'sleeve'), with each modality's own texture."""
        return self._surface("upper", tuple(getattr(look.texture, piece) for look in self.identity.looks))

    # --------------------------------------------------------------------------------------------------- parts
    def _limb(
        self, start: np.ndarray, end: np.ndarray, radii: tuple[float, float], surface: Surface, bias: float = 0.0
    ) -> None:
        (a, b), near = self.project(np.array([start, end]))
        scale = self.project.scale * self.build**0.6
        self.parts.append((near.mean() + bias, capsule(a, b, radii[0] * scale, radii[1] * scale), surface))

    def _trunk_like(
        self, sections: np.ndarray, surface: Surface, bias: float, *, y: float = 0.0, x: float = 0.0, sag: bool = True
    ) -> None:
        """Add a tube of cross-sections (z, half width, half depth) about the trunk's leaning axis."""
        z, half_lateral, half_depth = sections.T
        axis = np.stack([np.full_like(z, x), self._lean_y(z) + y, z], axis=1)
        centres, _ = self.project(axis)
        _, near = self.project(np.array([x, self._lean_y(0.68) + y, 0.68]))  # one level: only x, y and bias decide
        half_widths = self.project.half_width(half_lateral, half_depth)
        hang = self.sag * half_depth[-1] * self.project.scale if sag else 0.0
        self.parts.append((near + bias, tube(centres, half_widths, hang), surface))

    def _lean_y(self, z: np.ndarray | float) -> np.ndarray | float:
        return np.maximum(np.asarray(z) - HIP_Z, 0) * np.sin(self.pose.lean)

    def _leg(self, side: int) -> None:
        """Add thigh, shin and shoe; side -1 is the person's right."""
        phase = self.pose.phase + (np.pi if side < 0 else 0)
        thigh_angle = self.pose.stride * np.sin(phase)
        knee_bend = 0.10 + 1.3 * self.pose.stride * max(0.0, np.cos(phase)) ** 2  # the swinging leg bends
        hip = np.array([side * 0.052 * self.build, 0, HIP_Z])
        knee = hip + KNEE * _down(thigh_angle)
        ankle = knee + SHIN * _down(thigh_angle - knee_bend)
        toe = ankle + np.array([side * 0.018, 0.085 * np.cos(knee_bend), -0.028 - 0.05 * np.sin(knee_bend)])
        heel = ankle + np.array([0, -0.018, -0.018])
        trousers = self.shape.lower == "trousers"
        cloth, skin = self._surface("lower"), self._surface("skin", roughness=0.02)
        behind = -0.5  # whatever their swing, legs come out from under the trunk's clothes
        self._limb(heel, toe, (0.025, 0.021), self._surface("shoes"), behind + 0.004)
        self._limb(knee, ankle, (0.043, 0.034) if trousers else (0.036, 0.023), cloth if trousers else skin, behind)
        self._limb(hip, knee, (0.062, 0.046), skin if self.shape.lower == "skirt" else cloth, behind + 0.002)

    def _arm(self, side: int) -> np.ndarray:
        """Add upper arm, forearm and hand; return where the hand is."""
        carries = side < 0 and self.shape.bag == "hand"
        angle = -self.pose.swing * np.sin(self.pose.phase + (np.pi if side < 0 else 0)) * (0.4 if carries else 1)
        bend = 0.12 if carries else self.pose.elbow
        out = side * 0.16
        shoulder = np.array([side * 0.102 * self.build, self._lean_y(SHOULDER_Z), SHOULDER_Z - 0.014])
        elbow = shoulder + UPPER_ARM * _down(angle, out)
        wrist = elbow + FOREARM * _down(angle + bend, 0.3 * out)
        hand = wrist + HAND * _down(angle + bend)
        skin, sleeve = self._surface("skin", roughness=0.02), self._upper("sleeve")
        long = self.shape.sleeves == "long"
        self._limb(wrist, hand, (0.017, 0.015), skin)
        self._limb(elbow, wrist, (0.030, 0.024) if long else (0.026, 0.019), sleeve if long else skin, bias=0.001)
        self._limb(shoulder, elbow, (0.035, 0.030), sleeve, bias=0.002)
        return hand

    def _trunk(self) -> None:
        torso = TORSO.copy()
        torso[:, 1:] *= self.build * (1.0 if self.shape.cut == "shirt" else 1.06)
        hem = HEMS[self.shape.cut]
        if hem < torso[-1, 0]:
            flare = 1.10 if self.shape.cut == "coat" else 1.0
            torso = np.vstack([torso, [hem, *(flare * torso[-1, 1:])]])
        hips = SKIRT if self.shape.lower == "skirt" else HIPS
        hips = hips * [1, self.build, self.build]
        step = np.tan(self.pose.stride * abs(np.sin(self.pose.phase)))
        for sections in (torso, hips):  # cloth that hangs below the crotch gives way to the thighs
            hanging = sections[:, 0] < 0.45
            reach = 0.050 * self.build + step * (HIP_Z - sections[hanging, 0])
            sections[hanging, 2] = np.maximum(sections[hanging, 2], reach)
        self._trunk_like(torso, self._upper("body"), bias=0.010)
        self._trunk_like(hips, self._surface("lower"), bias=0.005, sag=self.shape.lower == "skirt")
        neck = np.array([0, self._lean_y(0.87), 0.84]), np.array([0, self._lean_y(0.9) + 0.006, 0.885])
        self._limb(*neck, (0.030, 0.027), self._surface("skin", roughness=0.02), bias=0.012)

    def _head(self) -> None:
        lean = float(self._lean_y(HEAD_Z))
        centre, near = self.project(np.array([0, lean + 0.006, HEAD_Z]))
        scale = self.project.scale
        radii = self.project.half_width(0.050, 0.057), HEAD_HALF * scale
        window = UNDER_CAP if self.shape.hair == "cap" else FACE
        hair_and_skin = self.identity.materials[[SLOTS.index("hair"), SLOTS.index("skin")], 0]
        head = Surface(hair_and_skin, np.array([window] * len(CHANNELS), np.float32), roughness=0.03)
        self.parts.append((near + 0.030, ellipse(centre, radii), head))
        self._face(near, lean)
        self._hair(lean)

    def _face(self, near: float, lean: float) -> None:
        """Add eyes and mouth if they face the camera."""
        for angle, z, radii, material in FACE_PARTS:
            facing = np.cos(angle + self.yaw)
            if facing > 0.35:
                centre, _ = self.project(np.array([0.047 * np.sin(angle), lean + 0.055 * np.cos(angle), z]))
                size = np.maximum(np.array([radii[0] * facing, radii[1]]) * self.project.scale, 0.4)
                surface = Surface(np.array([material, material], np.float32), relief=0.0, roughness=0.0)
                self.parts.append((near + 0.045, ellipse(centre, size), surface))

    def _hair(self, lean: float) -> None:
        """Add the hair or headgear that reaches beyond the head."""
        style, hair, hat = self.shape.hair, self._surface("hair", roughness=0.12), self._surface("hat")
        if style in LOOSE_HAIR:
            self._trunk_like(LOOSE_HAIR[style], hair, bias=0.021, y=-0.031)
        elif style == "ponytail":
            root, tip = np.array([0, lean - 0.050, 0.955]), np.array([0, lean - 0.085, 0.80])
            self._limb(root, tip, (0.024, 0.014), hair, bias=0.020)
        elif style == "cap":
            self._trunk_like(CROWN, hat, bias=0.060)
            brim = np.array([0, lean + 0.045, 0.953]), np.array([0, lean + 0.090, 0.944])
            self._limb(*brim, (0.030, 0.014), hat, bias=0.02)

    def _bag(self, hands: list[np.ndarray]) -> None:
        cloth = self._surface("bag")
        if self.shape.bag == "backpack":
            self._trunk_like(BACKPACK, cloth, bias=0.012, y=-0.098 * self.build)
            for side in (-1, 1):
                strap = np.array([side * 0.066, 0.052, 0.822]), np.array([side * 0.076, 0.074, 0.655])
                self._limb(*strap, (0.012, 0.010), cloth, bias=-0.02)
        elif self.shape.bag == "shoulder":
            self._trunk_like(SHOULDER_BAG, cloth, bias=0.02, x=0.148 * self.build)
            for y in (-0.072, 0.072):  # over the shoulder, before and behind the trunk
                strap = np.array([-0.060, 0.6 * y, 0.832]), np.array([0.125, y, 0.585])
                self._limb(*strap, (0.009, 0.009), cloth, bias=0.0)
        elif self.shape.bag == "hand":
            x, y, z = hands[0]
            sections = np.array([(z + 0.005, 0.008, 0.030), (z - 0.03, 0.024, 0.062), (z - 0.13, 0.028, 0.074)])
            self._trunk_like(sections, cloth, bias=0.01, x=x, y=y, sag=False)


def _down(angle: float, out: float = 0.0) -> np.ndarray:
    """Return the unit vector down, swung to the front by `angle` and to the person's left by `out`; radians."""
    return np.array([np.sin(out), np.cos(out) * np.sin(angle), -np.cos(out) * np.cos(angle)])
