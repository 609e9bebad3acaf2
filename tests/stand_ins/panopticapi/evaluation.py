import os

from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic


def pq_compute(gt_json, pred_json, *, gt_folder, pred_folder):
    results = os.path.join(pred_folder, "results.json")
    return evaluatePanoptic(gt_json, gt_folder, pred_json, pred_folder, results)
