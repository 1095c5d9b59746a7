"""Labels of SAEs: from files, or from the exports of Neuronpedia."""
