"""Scenes drawn from a seed: shaded objects on a ground, with the truth about who occludes, supports or contains whom.

How a scene comes about:

1. `plan.plan_scene` decides everything in numbers, a `spec.ScenePlan`, drawing again until all objects are visible
   enough:
   - `roles`: relations of the objects (a tree), then category, shape family and material of each;
   - `plan`: camera, light, ground and backdrop;
   - `layout`: positions and sizes, tested on coarse `silhouettes`; the order front to back.
2. `render.render_scene` draws the plan:
   - `layers`: each object alone, by casting rays at the solids of its shape: colour, alpha and depth;
   - `background`: ground and backdrop, then the shadows of the objects on them;
   - `render`: the layers over the background in order, a container's content between its walls; masks and amodal
     masks; tone mapping and grain; each object once more, turned and lit differently (its alternate view).

What objects are made of:

- `shapes` lists the families of every category; `profiles` has the outlines of lathe-turned ones.
- `solids` (convex polyhedra), `revolution` (surfaces of revolution) and `spheres` (tubes, metaballs) are what rays hit.
- `shading` and `shadows` light a surface; `camera` has the rays and the vector arithmetic.
- `patterns`, `grounds`, `photos` and `colors` are textures and palettes.

Everything is a function of (settings, pool, seed, index). The pools `train` and `held_out` share no shape family,
pattern, colour, photograph or noise. Tests compare bytes, so the order of float32 operations is part of the result; so
is where rays are not cast and shadows not computed because a bounding shape says that nothing is there.
"""
